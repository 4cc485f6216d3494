"""Times a choice as decode steps would run it: over several matrices, in one CUDA graph. Knows not what is compared."""

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice

import torch
import triton
from torch import Tensor

from text_generation_server.kernels.matmul.config import CUBLAS, KernelConfig
from text_generation_server.kernels.matmul.linear import SmallBatchLinear
from text_generation_server.kernels.matmul.packed import PackedWeight, Weight
from text_generation_server.specs.activation import Activation

PRODUCTS = 8
"""Fewest in a graph: the time around it must not count."""

REPLAYS = 2
ROUNDS = 3

TOLERANCE = {torch.bfloat16: 1e-2, torch.float16: 2e-3}
"""Largest difference from cuBLAS, relative to the norm of all results: both round sums of other orders once."""

ROUNDING = 5e-2
"""The same where cuBLAS has rows that are rounded to 8 bits."""


Case = tuple[KernelConfig, Weight, int, Activation | None]
"""A choice for weights [N, K], so many rows, and the activation of gated ones."""


class GraphTimer:
    """Microseconds of one product; each call compiles where `prepare` has not, checks, captures and replays."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._multiply = SmallBatchLinear(device)
        self._stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def prepare(self, cases: Sequence[Case]) -> None:
        """Compile what is about to be timed, on all of the host's processors."""
        with ThreadPoolExecutor() as pool:
            for _ in pool.map(self._compile, cases):
                pass

    def _compile(self, case: Case) -> None:
        choice, weight, rows, kind = case
        with torch.cuda.device(self._device), contextlib.suppress(triton.TritonError):
            x = torch.zeros(rows, weight.shape[1], dtype=weight.dtype, device=self._device)
            self._multiply(x, weight, None, choice, kind)

    def __call__(
        self, choice: KernelConfig, weights: Sequence[Weight], rows: int, kind: Activation | None, limit: float
    ) -> float | None:
        """None where the choice cannot run or is wrong. What takes longer than `limit` is timed only once.

        Args:
            weights: [N, K] each, together more than the L2 cache holds, or they are read from there.
        """
        x = torch.randn((rows, weights[0].shape[1]), dtype=weights[0].dtype, device=self._device)
        try:
            if choice != CUBLAS and not self._agrees(choice, x, weights[0], kind):
                return None
        except triton.TritonError:
            return None
        chain = list(islice(cycle(weights), max(PRODUCTS, len(weights))))
        graph = self._capture(lambda weight: self._multiply(x, weight, None, choice, kind), chain)
        fastest = float("inf")
        for _ in range(ROUNDS):
            fastest = min(fastest, self._time(graph) / len(chain))
            if fastest > limit:
                break
        del graph
        torch.cuda.empty_cache()  # each graph had memory of its own
        return fastest

    def _capture(self, multiply: Callable[[Weight], Tensor], chain: Sequence[Weight]) -> torch.cuda.CUDAGraph:
        # Without torch.cuda.graph, which collects garbage for longer than all that is measured takes.
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(self._device)
        with torch.cuda.stream(self._stream):
            multiply(chain[0])
            graph.capture_begin(capture_error_mode="thread_local")
            for weight in chain:
                multiply(weight)
            graph.capture_end()
            graph.replay()
        return graph

    def _time(self, graph: torch.cuda.CUDAGraph) -> float:
        """Microseconds of one replay."""
        start, end = (torch.Event(self._device, enable_timing=True) for _ in range(2))
        with torch.cuda.stream(self._stream):
            start.record(self._stream)
            for _ in range(REPLAYS):
                graph.replay()
            end.record(self._stream)
        end.synchronize()
        return 1000.0 * float(start.elapsed_time(end)) / REPLAYS

    def _agrees(self, choice: KernelConfig, x: Tensor, weight: Weight, kind: Activation | None) -> bool:
        got, expected = (self._multiply(x, weight, None, each, kind).float() for each in (choice, CUBLAS))
        rounds = isinstance(weight, PackedWeight) and weight.rounds
        tolerance = ROUNDING if rounds else TOLERANCE[x.dtype]
        return bool((got - expected).norm() <= tolerance * expected.norm())
