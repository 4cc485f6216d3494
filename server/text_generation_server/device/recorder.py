"""How device work is recorded, to be replayed without the host. Knows nothing of what it is."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor


class Recorder(Protocol):
    """Records work."""

    def record(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Something that does the same again with what is in memory then.

        Its result is the same tensor each time, to be used before anything of this recorder is replayed.
        """


class CudaRecorder:
    """Records CUDA graphs on the current stream, in one pool of memory: they never run at the same time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """See `Recorder`. The work is done once before: kernels are compiled and libraries set up by then."""
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode():
            work()
            torch.cuda.current_stream().synchronize()
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                result = _borrowed(work())
            finally:
                graph.capture_end()
        return partial(_replay, graph, result)


def _replay(graph: torch.cuda.CUDAGraph, result: Tensor) -> Tensor:
    graph.replay()
    return result


class _Memory:
    """A tensor's memory as the CUDA array interface describes it, which knows integers of every size."""

    def __init__(self, tensor: Tensor) -> None:
        size = tensor.element_size()
        self.__cuda_array_interface__: dict[str, Any] = {
            "version": 3,
            "typestr": f"<i{size}",
            "shape": tuple(tensor.shape),
            "strides": tuple(stride * size for stride in tensor.stride()),
            "data": (tensor.data_ptr(), False),
        }


def _borrowed(tensor: Tensor) -> Tensor:
    """A tensor in the same memory that does not keep it from being used again."""
    return torch.as_tensor(_Memory(tensor), device=tensor.device).view(tensor.dtype)
