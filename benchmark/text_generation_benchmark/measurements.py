"""Figures of one batch size from its runs. Knows neither where runs come from nor where figures go."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from text_generation_benchmark.percentiles import percentile
from text_generation_benchmark.scenario import Run


@dataclass(frozen=True, slots=True)
class Distribution:
    """Some samples in six numbers of their unit."""

    average: float
    lowest: float
    highest: float
    p50: float
    p90: float
    p99: float

    @classmethod
    def of(cls, samples: Iterable[float]) -> Self:
        """At least one sample."""
        ordered = sorted(samples)
        return cls(
            average=math.fsum(ordered) / len(ordered),
            lowest=ordered[0],
            highest=ordered[-1],
            p50=percentile(ordered, 50),
            p90=percentile(ordered, 90),
            p99=percentile(ordered, 99),
        )


@dataclass(frozen=True, slots=True)
class PrefillFigures:
    """Of the step that computes all prompts. tokens_per_second counts the tokens it generates, one a request."""

    latency_ms: Distribution
    tokens_per_second: Distribution
    prompt_tokens_per_second: Distribution


@dataclass(frozen=True, slots=True)
class DecodeFigures:
    """Of the steps after it: step_latency_ms of each step, the others of all steps of a run together."""

    step_latency_ms: Distribution
    latency_ms: Distribution
    tokens_per_second: Distribution


@dataclass(frozen=True, slots=True)
class Measurement:
    """All of one batch size."""

    batch_size: int
    prefill: PrefillFigures
    decode: DecodeFigures
    runs: tuple[Run, ...]


def measure(batch_size: int, sequence_length: int, runs: Sequence[Run]) -> Measurement:
    """The figures of some runs of batches with `batch_size` prompts of `sequence_length` tokens."""
    prefill = PrefillFigures(
        latency_ms=Distribution.of(run.prefill_s * 1e3 for run in runs),
        tokens_per_second=Distribution.of(batch_size / run.prefill_s for run in runs),
        prompt_tokens_per_second=Distribution.of(batch_size * sequence_length / run.prefill_s for run in runs),
    )
    decode = DecodeFigures(
        step_latency_ms=Distribution.of(seconds * 1e3 for run in runs for seconds in run.decode_s),
        latency_ms=Distribution.of(math.fsum(run.decode_s) * 1e3 for run in runs),
        tokens_per_second=Distribution.of(run.decode_tokens / math.fsum(run.decode_s) for run in runs),
    )
    return Measurement(batch_size, prefill, decode, tuple(runs))
