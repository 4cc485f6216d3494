"""Finds the fastest kernel for each shape of weights and number of rows, once per machine. Knows no kernel's code.

A choice measured on one rank serves all ranks of the host: they share a file, one measures at a time, and the next
finds what it kept. So ranks with equal shapes run equal kernels, and a restart measures nothing. What was measured on a
card of the same name comes with this package for some shapes: such choices are tried once, not measured.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate, product
from pathlib import Path
from typing import Protocol

import torch
from loguru import logger
from torch import Tensor

from text_generation_server.kernels.matmul.config import (
    CUBLAS,
    Form,
    KernelConfig,
    candidates,
    carrier,
    packed_candidates,
)
from text_generation_server.kernels.matmul.low_rank import LowRank
from text_generation_server.kernels.matmul.packed import PackedWeight, Weight
from text_generation_server.kernels.matmul.picks import PickFile
from text_generation_server.log import Progress
from text_generation_server.specs.activation import Activation

ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Numbers of rows worth a measurement of their own; what lies between is served as the next one."""

DTYPES = (torch.bfloat16, torch.float16)
"""What the kernels multiply."""

LEAST_BYTES = 1 << 20
"""Of weights worth a measurement: smaller ones are read in less time than a launch takes."""

GAIN = 1.01
"""A kernel must be so much faster than cuBLAS."""

HOPELESS = 1.1
"""What takes so much longer than the best so far, by a first impression, is not looked at again."""

BYTES_READ = 1 << 29
"""Of different weights in one measurement: several times what an L2 cache holds."""

SHIPPED = Path(__file__).parents[1] / "kernels" / "matmul" / "shipped.json"
"""Choices by names of cards and cases, as `PickFile` keeps them."""

SECONDS = 120.0
"""After which no new case is begun. Nearly all of it is compilation, and what was compiled is found next time."""


class Measure(Protocol):
    """Times choices for products of so many rows, activated where there is an activation."""

    def prepare(self, cases: Sequence[tuple[KernelConfig, Weight, int, Activation | None]]) -> None:
        """Choices, each with weights and rows, about to be timed: do ahead what can be done for all at once."""

    def __call__(
        self, choice: KernelConfig, weights: Sequence[Weight], rows: int, kind: Activation | None, limit: float
    ) -> float | None:
        """Microseconds a product, less exact above `limit`; None where the choice cannot be used."""


class Multiply(Protocol):
    """Kernels of all choices."""

    def __call__(
        self,
        x: Tensor,
        weight: Weight,
        bias: Tensor | None,
        choice: KernelConfig,
        kind: Activation | None = None,
        low: LowRank | None = None,
    ) -> Tensor:
        """See `SmallBatchLinear`."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Of weights [n, k]. kind: of gates among their outputs. form: of few bits, None for plain ones of `dtype`."""

    n: int
    k: int
    dtype: torch.dtype
    kind: Activation | None = None
    form: Form | None = None

    def candidates(self, rows: int) -> list[KernelConfig]:
        """What may be fastest for so many rows."""
        if self.form is None:
            return candidates(rows, self.n, self.k)
        return packed_candidates(rows, self.n, self.k, self.form)

    def __str__(self) -> str:
        more = [self.kind.value] if self.kind is not None else []
        return " ".join([f"{self.n}x{self.k}", *more, *([str(self.form)] if self.form is not None else [])])

    def case(self, rows: int) -> str:
        """Its name in a file."""
        return f"{rows} rows by {self} {str(self.dtype).removeprefix('torch.')}"


@dataclass(slots=True)
class _Tally:
    """What a tuning did, to be told in one line."""

    measured: int = 0
    known: int = 0
    shipped: int = 0
    cut: int = 0


class MatmulTuner:
    """The choices for the weights of one model on one device, and what multiplies as they say."""

    def __init__(
        self, cache_file: Path | None, device: torch.device, measure: Measure | None = None, shipped: Path = SHIPPED
    ) -> None:
        """Without a file every start measures anew, and ranks may differ in the last bits of their own parts."""
        self._shipped = PickFile(shipped, _card(device)).read()
        self._file = PickFile(cache_file, _machine(device)) if cache_file is not None else None
        self._device = device
        self._measure = measure
        self._registered: dict[int, tuple[Shape, Weight]] = {}
        self._choices: dict[Shape, dict[int, KernelConfig]] = {}

    @cached_property
    def multiply(self) -> Multiply:
        """The kernels of all choices."""
        from text_generation_server.kernels.matmul.linear import SmallBatchLinear  # Triton is installed on CUDA devices

        return SmallBatchLinear(self._device)

    def register(self, weight: Weight, kind: Activation | None = None) -> Shape:
        """Weights [N, K], contiguous, that will be multiplied; small ones, and dtypes without kernels, by cuBLAS.

        kind: of the gates that the first half of their products are. Of what is registered twice the last word counts.
        """
        n, k = weight.shape
        shape = Shape(n, k, weight.dtype, kind, weight.form if isinstance(weight, PackedWeight) else None)
        if weight.dtype in DTYPES and weight.nbytes >= LEAST_BYTES:
            self._registered[id(weight)] = shape, weight
        return shape

    def choice(self, shape: Shape, rows: int) -> KernelConfig:
        """That of the least number tuned that is not below `rows`; cuBLAS where there is none."""
        tuned = self._choices.get(shape, {})
        return tuned[min(enough)] if (enough := [count for count in tuned if count >= rows]) else CUBLAS

    def carrier(self, shape: Shape, rows: int) -> KernelConfig | None:
        """See `carrier`; None where nothing was chosen, too."""
        if shape not in self._choices or shape.form is not None:
            return None
        return carrier(self.choice(shape, rows), rows, shape.n, shape.k)

    def tune(self, rows: Sequence[int] = ROWS) -> None:
        """Choose for all registered weights, from the file where it knows, else by measurement."""
        started = time.monotonic()
        weights: dict[Shape, list[Weight]] = {}
        for shape, weight in self._registered.values():
            weights.setdefault(shape, []).append(weight)
        with self._alone():
            tally = self._tune(weights, rows, self._file.read() if self._file is not None else {}, started + SECONDS)
        seconds = time.monotonic() - started
        logger.bind(phase="kernels", seconds=seconds).info(
            "Matrix kernels for {} shapes of weights in {:.1f} s: {} cases measured, {} known, {} known of such cards, "
            "{} left to cuBLAS for want of time. {}",
            *(len(weights), seconds, tally.measured, tally.known, tally.shipped, tally.cut),
            self._told(),
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with ExitStack() as stack:
            if self._file is not None:
                try:
                    stack.enter_context(self._file.held())
                except OSError as error:
                    self._go_without_file(error)
            yield

    def _keep(self, choices: Mapping[str, KernelConfig]) -> None:
        if self._file is not None and choices:
            try:
                self._file.add(choices)
            except OSError as error:
                self._go_without_file(error)

    def _go_without_file(self, error: OSError) -> None:
        logger.warning("Choices of matrix kernels are not kept, every start will measure: {}", error)
        self._file = None

    def _tune(
        self,
        weights: Mapping[Shape, Sequence[Weight]],
        rows: Sequence[int],
        kept: Mapping[str, KernelConfig],
        deadline: float,
    ) -> _Tally:
        tally = _Tally()
        missing = []
        for count, shape in product(sorted(rows), weights):
            found = kept.get(shape.case(count))
            if found is not None and _possible(found, shape, count):
                self._choices.setdefault(shape, {})[count] = found
                tally.known += 1
            else:
                missing.append((shape, count))
        measure = self._measure or _timer(self._device)
        chosen = [(c, weights[s][0], count, s.kind) for s, tuned in self._choices.items() for count, c in tuned.items()]
        measure.prepare([case for case in chosen if case[0] != CUBLAS])  # otherwise one by one, as they are first used
        missing = self._take_shipped(measure, weights, missing, tally)
        cases = [(c, weights[s][0], count, s.kind) for s, count in missing for c in s.candidates(count)]
        measure.prepare(cases)
        progress = Progress("tune", "Choosing matrix kernels: {:.0f} of {:.0f} cases")
        for done, (shape, count) in enumerate(missing):
            progress(done, len(missing))
            if time.monotonic() > deadline:
                tally.cut += 1
                continue
            self._take(shape, count, _fastest(measure, shape, _enough(weights[shape]), count))
            tally.measured += 1
        return tally

    def _take_shipped(
        self,
        measure: Measure,
        weights: Mapping[Shape, Sequence[Weight]],
        missing: Sequence[tuple[Shape, int]],
        tally: _Tally,
    ) -> list[tuple[Shape, int]]:
        """Take what is known of such cards and runs here, with whatever compiler; the cases that are left."""
        left, offered = [], []
        for shape, count in missing:
            found = self._shipped.get(shape.case(count))
            if found is not None and _possible(found, shape, count):
                offered.append((shape, count, found))
            else:
                left.append((shape, count))
        measure.prepare([(c, weights[s][0], count, s.kind) for s, count, c in offered if c != CUBLAS])
        for shape, count, choice in offered:
            if choice == CUBLAS or measure(choice, weights[shape][:1], count, shape.kind, 0.0) is not None:
                self._take(shape, count, choice)
                tally.shipped += 1
            else:
                left.append((shape, count))
        return left

    def _take(self, shape: Shape, count: int, choice: KernelConfig) -> None:
        self._choices.setdefault(shape, {})[count] = choice
        self._keep({shape.case(count): choice})

    def _told(self) -> str:
        return "; ".join(
            f"{shape}: " + ", ".join(f"{rows} {choice}" for rows, choice in tuned.items())
            for shape, tuned in self._choices.items()
        )


def _possible(choice: KernelConfig, shape: Shape, rows: int) -> bool:
    """Whether it is one of today's: what is no candidate any more is older than the kernels."""
    return choice == CUBLAS or choice in shape.candidates(rows)


def _fastest(measure: Measure, shape: Shape, weights: Sequence[Weight], rows: int) -> KernelConfig:
    possible = shape.candidates(rows)
    if not possible:
        return CUBLAS
    time_to_beat = measure(CUBLAS, weights, rows, shape.kind, float("inf"))
    best, fastest = CUBLAS, float("inf") if time_to_beat is None else time_to_beat / GAIN
    for choice in possible:
        taken = measure(choice, weights, rows, shape.kind, fastest * HOPELESS)
        if taken is not None and taken < fastest:
            best, fastest = choice, taken
    return best


def _enough(weights: Sequence[Weight]) -> Sequence[Weight]:
    """The first that have `BYTES_READ` together."""
    before = accumulate((weight.nbytes for weight in weights), initial=0)
    return [weight for weight, size in zip(weights, before, strict=False) if size < BYTES_READ]


def _card(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _machine(device: torch.device) -> str:
    return f"{_card(device)}, torch {torch.__version__}, triton {_triton()}"


def _triton() -> str:
    try:
        return version("triton")
    except PackageNotFoundError:
        return "none"


def _timer(device: torch.device) -> Measure:
    from text_generation_server.kernels.matmul.measure import GraphTimer

    return GraphTimer(device)
