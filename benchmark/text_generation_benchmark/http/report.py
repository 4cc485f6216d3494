"""Measurements as JSON and as Markdown tables. Knows nothing of how they were made."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from text_generation_benchmark.http.compare import Measured, compare
from text_generation_benchmark.http.figures import Figures, Run
from text_generation_benchmark.http.sweep import Cell
from text_generation_benchmark.http.timeline import Timeline
from text_generation_benchmark.tables import capital, number, plain, table

_BUSY, _SHORT, _LATE_MS = 0.85, 0.99, 10.0
"""From when on a report warns: of this process's share of a core, of answers' tokens, of requests sent late."""


class Column(NamedTuple):
    """A head, how its numbers are written, and where they are."""

    head: str
    form: str
    path: tuple[str, ...]


_RATES = (
    Column("Requests", "{:d}", ("requests",)),
    Column("Failed", "{:d}", ("failed",)),
    Column("Prompt", "{:.0f}", ("prompt_tokens",)),
    Column("Answer", "{:.0f}", ("answer_tokens",)),
    Column("requests/s", "{:.2f}", ("requests_per_second", "average")),
    Column("tokens/s", "{:.1f}", ("tokens_per_second", "average")),
    Column("lowest", "{:.1f}", ("tokens_per_second", "lowest")),
    Column("highest", "{:.1f}", ("tokens_per_second", "highest")),
)
_GOODPUT = (
    Column("Within goals", "{:.1%}", ("goodput", "share")),
    Column("of them/s", "{:.2f}", ("goodput", "requests_per_second", "average")),
)
_LATENCIES = (
    ("Time to first token", "ttft_ms"),
    ("From one event to the next", "itl_ms"),
    ("Time per token after the first", "tpot_ms"),
    ("End to end", "e2e_ms"),
)
_PERCENTILES = ("average", "p50", "p90", "p95", "p99")
_COMPARED = (
    Column("tokens/s", "{:.3f}", ("tokens_per_second", "average")),
    Column("requests/s", "{:.3f}", ("requests_per_second", "average")),
    *(
        Column(f"{head} {percentile}", "{:.3f}", (key, percentile))
        for head, key in (("TTFT", "ttft_ms"), ("ITL", "itl_ms"), ("e2e", "e2e_ms"))
        for percentile in ("p50", "p99")
    ),
)


def cell_of(cell: Cell, figures: Figures, raw: Sequence[Run]) -> dict[str, Any]:
    """A cell's figures as values that JSON has, and the requests of `raw` runs."""
    found = {"workload": cell.workload.label, "load": cell.load.label, "level": cell.load.level, **asdict(figures)}
    if raw:
        found["runs"] = [[_raw(one, run.started) for one in run.timelines] for run in raw]
    return found


def document(measured: Sequence[Measured]) -> dict[str, Any]:
    """All measurements; of two, the comparison too."""
    found: dict[str, Any] = {"servers": list(measured)}
    if len(measured) == 2:
        found["comparison"] = compare(*measured)
    return found


def markdown(found: dict[str, Any]) -> str:
    """The tables of a `document`."""
    parts = [part for measured in found["servers"] for part in _measured(measured)]
    if "comparison" in found:
        parts += _comparison(found["comparison"])
    return "\n\n".join(parts) + "\n"


def _measured(measured: Measured) -> list[str]:
    cells, server = measured["cells"], measured["server"]
    facts = {"url": server["url"], "model": server["model"], **measured["settings"]}
    rates = _RATES + (_GOODPUT if any(cell["goodput"] for cell in cells) else ())
    parts = [
        f"## {measured['name']}",
        table(["Setting", "Value"], [[key.replace("_", " "), plain(value)] for key, value in facts.items()]),
        "### Throughput",
        "Prompt and answer: tokens of a request, as the server counts; lowest and highest: tokens/s of a repetition.",
        _table(cells, rates),
    ]
    for title, key in _LATENCIES:
        columns = [Column(capital(name), "{:.1f}", (key, name)) for name in _PERCENTILES]
        parts += [f"### {title}, ms", _table(cells, columns)]
    return parts + [f"**{note}**" for cell in cells for note in _notes(cell)]


def _notes(cell: dict[str, Any]) -> list[str]:
    """What one must know before believing a cell's figures."""
    notes, name = [], f"{cell['workload']}, {cell['load']}"
    if cell["failed"]:
        notes.append(
            f"{name}: {cell['failed']} of {cell['requests']} requests failed, the first: {cell['first_error']}"
        )
    if (got := cell["answer_tokens"]) is not None and got < _SHORT * cell["asked_tokens"]:
        notes.append(f"{name}: answers had {got:.1f} tokens, {cell['asked_tokens']:.1f} were asked for")
    if cell["late_ms"] and cell["late_ms"]["p99"] > _LATE_MS:
        notes.append(f"{name}: requests were sent late, p99 {cell['late_ms']['p99']:.0f} ms, which counts as waiting")
    if (share := cell["client_cpu_share"]) > _BUSY:
        notes.append(f"{name}: the measuring process used {share:.0%} of a core; it may be what limits the figures")
    return notes


def _comparison(comparison: dict[str, Any]) -> list[str]:
    ours, theirs = comparison["names"]
    gains = "latencies below 1 and rates above 1 are gains"
    parts = [f"## {ours} beside {theirs}", f"The figures of {ours} divided by those of {theirs}: {gains}."]
    if differing := comparison["different_settings"]:
        rows = [[name.replace("_", " "), plain(mine), plain(other)] for name, (mine, other) in differing.items()]
        parts += ["The settings differ:", table(["Setting", ours, theirs], rows)]
    return [*parts, _table(comparison["cells"], _COMPARED) if comparison["cells"] else "No cell is in both."]


def _table(cells: Sequence[dict[str, Any]], columns: Sequence[Column]) -> str:
    rows = [
        [cell["workload"], cell["load"], *(number(cell, column.form, *column.path) for column in columns)]
        for cell in cells
    ]
    return table(["Workload", "Load", *(column.head for column in columns)], rows, str.rjust)


def _raw(timeline: Timeline, started: float) -> dict[str, Any]:
    """In seconds after the run's start."""
    found = {key: round(getattr(timeline, key) - started, 6) for key in ("due", "sent", "end")}
    found["times"] = [round(time - started, 6) for time in timeline.times]
    for key in ("asked_tokens", "tokens", "prompt_tokens", "error"):
        found[key] = getattr(timeline, key)
    return found
