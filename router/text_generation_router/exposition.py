"""Counters, gauges and histograms, and their text in Prometheus' exposition format.

Made here because the names are given: dashboards look for counters without `_total`, which the client library adds.
Those of several processes are added up: what is a gauge is set in one of them. Used on one thread only.
Knows nothing of what is counted.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar


class Series(Protocol):
    """What has a value to show."""

    def samples(self, name: str, labels: str) -> Iterable[str]:
        """Lines of the exposition; `labels` is `key="value"` pairs with commas, or empty."""

    def state(self) -> Any:
        """What another process adds."""

    def include(self, state: Any) -> None:
        """Add what a series of the same kind had in another process."""


class Counter:
    """A number that only rises."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def add(self, amount: int = 1) -> None:
        """Count."""
        self.value += amount

    def state(self) -> int:
        """See `Series`."""
        return self.value

    def include(self, state: int) -> None:
        """See `Series`."""
        self.value += state

    def samples(self, name: str, labels: str) -> Iterable[str]:
        """One line."""
        yield _line(name, labels, self.value)


class Gauge:
    """A number that rises and falls."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def set(self, value: float) -> None:
        """Take a new value."""
        self.value = value

    def state(self) -> float:
        """See `Series`."""
        return self.value

    def include(self, state: float) -> None:
        """See `Series`."""
        self.value += state

    def samples(self, name: str, labels: str) -> Iterable[str]:
        """One line."""
        yield _line(name, labels, self.value)


class Histogram:
    """How many values were at most each bound, their sum and number."""

    __slots__ = ("_bounds", "_counts", "_marks", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._marks: list[str] | None = None  # what its buckets' lines begin with, which takes most of a line's time
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value, once or more often."""
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def state(self) -> tuple[list[int], float]:
        """See `Series`."""
        return self._counts, self._sum

    def include(self, state: tuple[list[int], float]) -> None:
        """See `Series`."""
        counts, added = state
        self._counts = [one + other for one, other in zip(self._counts, counts, strict=True)]
        self._sum += added

    def samples(self, name: str, labels: str) -> Iterable[str]:
        """A line for each bound, and two for sum and number."""
        if self._marks is None:
            start = f"{name}_bucket{{{labels}{',' if labels else ''}le="
            self._marks = [f'{start}"{bound}"}} ' for bound in (*self._bounds, "+Inf")]
        total = 0
        for mark, count in zip(self._marks, self._counts, strict=True):
            total += count
            yield f"{mark}{total}"
        yield _line(f"{name}_sum", labels, self._sum)
        yield _line(f"{name}_count", labels, total)


S = TypeVar("S", bound=Series)


class Labelled(Generic[S]):
    """One series for each value of a label, all there from the start."""

    def __init__(self, label: str, series: dict[str, S]) -> None:
        self.label = label
        self._series = series

    def __getitem__(self, value: str) -> S:
        return self._series[value]

    @property
    def values(self) -> Sequence[str]:
        """Those of the label so far."""
        return list(self._series)

    def state(self) -> dict[str, Any]:
        """See `Series`."""
        return {value: series.state() for value, series in self._series.items()}

    def include(self, state: dict[str, Any]) -> None:
        """See `Series`."""
        for value, added in state.items():
            self[value].include(added)

    def samples(self, name: str, labels: str) -> Iterable[str]:
        """The lines of all series."""
        for value, series in self._series.items():
            yield from series.samples(name, pairs({self.label: value}))


class OpenLabelled(Labelled[S]):
    """The same for a label whose values come with time: from the `most`-th on they share the series of `other`."""

    def __init__(self, label: str, make: Callable[[], S], values: Iterable[str], most: int, other: str) -> None:
        super().__init__(label, {})
        self._make = make
        self._most = most
        self._other = other
        for value in values:
            self[value]

    def __getitem__(self, value: str) -> S:
        if value not in self._series:
            value = value if len(self._series) < self._most - 1 else self._other
            self._series.setdefault(value, self._make())
        return self._series[value]


class Constant:
    """A 1 that carries facts in its labels."""

    def __init__(self, facts: Mapping[str, str]) -> None:
        self.facts = facts

    def state(self) -> None:
        """See `Series`."""

    def include(self, _: None) -> None:
        """See `Series`."""

    def samples(self, name: str, labels: str) -> Iterable[str]:
        """One line."""
        yield _line(name, pairs(self.facts), 1)


class Metric(NamedTuple):
    """A series under its name. kind: counter, gauge or histogram."""

    kind: str
    name: str
    help: str
    series: Series


class Registry:
    """All metrics, in the order in which they were added."""

    def __init__(self) -> None:
        self.metrics: list[Metric] = []

    def add(self, kind: str, name: str, help: str, series: S) -> S:
        """Show `series` under a name. kind: counter, gauge or histogram."""
        self.metrics.append(Metric(kind, name, help, series))
        return series

    def state(self) -> list[Any]:
        """The values of all series, for another process that has the same."""
        return [metric.series.state() for metric in self.metrics]

    def include(self, states: Sequence[Any]) -> None:
        """Add those of another process."""
        for metric, state in zip(self.metrics, states, strict=True):
            metric.series.include(state)

    def text(self) -> str:
        """The exposition."""
        lines: list[str] = []
        for kind, name, help, series in self.metrics:
            lines += (f"# HELP {name} {help}", f"# TYPE {name} {kind}", *series.samples(name, ""))
        return "\n".join(lines) + "\n"


_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def pairs(labels: Mapping[str, str]) -> str:
    """Labels as the format writes them."""
    return ",".join(f'{label}="{value.translate(_ESCAPES)}"' for label, value in labels.items())


def _line(name: str, labels: str, value: float) -> str:
    return f"{name}{{{labels}}} {value}" if labels else f"{name} {value}"
