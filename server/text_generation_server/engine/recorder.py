"""How device work is recorded, to be replayed without the host. Knows nothing of what it is."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor


class Recorder(Protocol):
    """Records work, piece by piece where it is interrupted."""

    def record(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Something that does the same again with what is in memory then.

        Its result is the same tensor each time, to be used before anything of this recorder is replayed.
        """

    def interrupt(self, call: Callable[[], None]) -> None:
        """For use within work: `call` is not recorded, but made at this point of every replay."""

    def borrowed(self, tensor: Tensor) -> Tensor:
        """For use within work: the tensor without a claim to its memory, for a `call` that comes next."""


class CudaRecorder:
    """Records CUDA graphs on the current stream, in one pool of memory: they never run at the same time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._open: torch.cuda.CUDAGraph | None = None
        self._pieces: list[Callable[[], None]] = []

    def record(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """See `Recorder`. The work is done once before: kernels are compiled and libraries set up by then."""
        with torch.inference_mode():
            work()
            torch.cuda.current_stream().synchronize()
            self._begin()
            try:
                result = _borrowed(work())
            finally:
                self._end()
        pieces, self._pieces = self._pieces, []
        return partial(_replay, pieces, result)

    def interrupt(self, call: Callable[[], None]) -> None:
        """See `Recorder`."""
        if self._open is not None:
            self._end()
            self._pieces.append(call)
            self._begin()

    def borrowed(self, tensor: Tensor) -> Tensor:
        """See `Recorder`."""
        return tensor if self._open is None else _borrowed(tensor)

    def _begin(self) -> None:
        self._open = torch.cuda.CUDAGraph()
        self._open.capture_begin(pool=self._pool, capture_error_mode="thread_local")

    def _end(self) -> None:
        graph, self._open = self._open, None
        assert graph is not None
        graph.capture_end()
        self._pieces.append(graph.replay)


def _replay(pieces: list[Callable[[], None]], result: Tensor) -> Tensor:
    for piece in pieces:
        piece()
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
