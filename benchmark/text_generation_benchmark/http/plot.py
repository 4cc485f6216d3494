"""Throughput and latencies over the load, drawn as one PNG or SVG file. Knows figures only; needs the extra `bench`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from text_generation_benchmark.http.compare import Measured

FORMATS = (".png", ".svg")


class Panel(NamedTuple):
    """An axis, where its numbers are, and which of them are drawn: the first as a line, the second dashed."""

    axis: str
    key: str
    line: str
    dashed: str | None = None


_PANELS = (
    Panel("tokens/s", "tokens_per_second", "average"),
    Panel("time to first token (ms), p99 dashed", "ttft_ms", "p50", "p99"),
    Panel("from one event to the next (ms), p99 dashed", "itl_ms", "p50", "p99"),
    Panel("end to end (ms), p99 dashed", "e2e_ms", "p50", "p99"),
)


def draw(path: Path, measured: Sequence[Measured]) -> None:
    """Write the file; a line for each server and workload, p50 drawn through and p99 dashed."""
    from matplotlib.figure import Figure  # an extra, and slow to import

    figure = Figure(figsize=(11, 8), layout="constrained")
    for place, panel in enumerate(_PANELS):
        axes = figure.add_subplot(2, 2, place + 1, xlabel="load (streams, or requests a second)", ylabel=panel.axis)
        for label, cells in _lines(measured):
            _draw(axes, panel, label, cells)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _lines(measured: Sequence[Measured]) -> list[tuple[str, list[dict[str, Any]]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for one in measured:
        for cell in sorted(one["cells"], key=lambda cell: float(cell["level"])):
            found.setdefault(f"{one['name']}, {cell['workload']}", []).append(cell)
    return list(found.items())


def _draw(axes: Any, panel: Panel, label: str, cells: Sequence[dict[str, Any]]) -> None:
    points = [(cell["level"], cell[panel.key]) for cell in cells if cell[panel.key]]
    levels = [level for level, _ in points]
    [line] = axes.plot(levels, [numbers[panel.line] for _, numbers in points], marker="o", label=label)
    if panel.dashed is not None:
        numbers = [numbers[panel.dashed] for _, numbers in points]
        axes.plot(levels, numbers, marker=".", linestyle="--", color=line.get_color())
