"""Figures of one cell, a workload under a load, from the timelines of its runs. Knows neither servers nor reports."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from text_generation_benchmark.http.timeline import Timeline
from text_generation_benchmark.percentiles import percentile

GOALS = ("ttft", "itl", "tpot", "e2e")
"""What a request may be wanted to keep within: its first text, its longest pause, its mean pause, all of it."""


@dataclass(frozen=True, slots=True)
class Run:
    """A repetition. Tokens and answers count for its rates until `window_s` after `started`; all for the rest.

    cpu_share: of one core, what this process has used of it.
    """

    timelines: Sequence[Timeline]
    started: float
    window_s: float
    cpu_share: float


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Some samples in five numbers of their unit."""

    average: float
    p50: float
    p90: float
    p95: float
    p99: float

    @classmethod
    def of(cls, samples: Iterable[float]) -> Self | None:
        """None without samples."""
        ordered = sorted(samples)
        if not ordered:
            return None
        points = (percentile(ordered, percent) for percent in (50, 90, 95, 99))
        return cls(math.fsum(ordered) / len(ordered), *points)


@dataclass(frozen=True, slots=True)
class Spread:
    """A number of each repetition."""

    average: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Self:
        """At least one sample."""
        return cls(math.fsum(samples) / len(samples), min(samples), max(samples))


@dataclass(frozen=True, slots=True)
class Goodput:
    """Requests that kept within all goals: their share of all, failed ones included, and how many a second."""

    share: float
    requests_per_second: Spread


@dataclass(frozen=True, slots=True)
class Figures:
    """Of all repetitions together, but for the rates. Failed requests count for nothing but `failed` and goodput.

    prompt_tokens, answer_tokens: averages, as the server counts. asked_tokens: what answers should have had.
    tokens_per_event: above 1 where events carry several. late_ms: from when a request was due until it was sent.
    """

    requests: int
    failed: int
    first_error: str | None
    prompt_tokens: float | None
    answer_tokens: float | None
    asked_tokens: float | None
    tokens_per_event: float | None
    requests_per_second: Spread
    tokens_per_second: Spread
    ttft_ms: Percentiles | None
    itl_ms: Percentiles | None
    tpot_ms: Percentiles | None
    e2e_ms: Percentiles | None
    late_ms: Percentiles | None
    goodput: Goodput | None
    client_cpu_share: float


def figures(runs: Sequence[Run], goals_ms: Mapping[str, float]) -> Figures:
    """At least one run."""
    every = [timeline for run in runs for timeline in run.timelines]
    errors = [timeline.error for timeline in every if timeline.error is not None]
    good = [timeline for timeline in every if timeline.error is None]
    tokens = sum(timeline.tokens for timeline in good)
    return Figures(
        requests=len(every),
        failed=len(errors),
        first_error=errors[0] if errors else None,
        prompt_tokens=_average([one.prompt_tokens for one in good if one.prompt_tokens is not None]),
        answer_tokens=_average([one.tokens for one in good]),
        asked_tokens=_average([one.asked_tokens for one in good]),
        tokens_per_event=tokens / sum(len(one.times) for one in good) if good else None,
        requests_per_second=Spread.of([len(_ended(run)) / run.window_s for run in runs]),
        tokens_per_second=Spread.of([_tokens(run) / run.window_s for run in runs]),
        ttft_ms=Percentiles.of(one.ttft_s * 1e3 for one in good),
        itl_ms=Percentiles.of(gap * 1e3 for one in good for gap in one.gaps_s()),
        tpot_ms=Percentiles.of(one.tpot_s * 1e3 for one in good if one.tpot_s is not None),
        e2e_ms=Percentiles.of(one.e2e_s * 1e3 for one in good),
        late_ms=Percentiles.of(one.late_s * 1e3 for one in every),
        goodput=_goodput(runs, len(every), goals_ms) if goals_ms and every else None,
        client_cpu_share=max(run.cpu_share for run in runs),
    )


def _goodput(runs: Sequence[Run], requests: int, goals_ms: Mapping[str, float]) -> Goodput:
    kept = sum(one.error is None and _keeps(one, goals_ms) for run in runs for one in run.timelines)
    rates = [sum(_keeps(one, goals_ms) for one in _ended(run)) / run.window_s for run in runs]
    return Goodput(kept / requests, Spread.of(rates))


def _keeps(timeline: Timeline, goals_ms: Mapping[str, float]) -> bool:
    found = {
        "ttft": timeline.ttft_s,
        "itl": max(timeline.gaps_s(), default=0.0),
        "tpot": timeline.tpot_s or 0.0,
        "e2e": timeline.e2e_s,
    }
    return all(found[name] * 1e3 <= goal for name, goal in goals_ms.items())


def _ended(run: Run) -> list[Timeline]:
    return [one for one in run.timelines if one.error is None and one.end <= run.started + run.window_s]


def _tokens(run: Run) -> float:
    return math.fsum(one.tokens_until(run.started + run.window_s) for one in run.timelines if one.error is None)


def _average(numbers: Sequence[int]) -> float | None:
    return math.fsum(numbers) / len(numbers) if numbers else None
