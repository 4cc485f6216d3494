"""Writes the table of metrics in docs/observability.md from the router's registry: `make docs`."""

import re
from pathlib import Path

from text_generation_router.exposition import Constant, Labelled, Metric, OpenLabelled
from text_generation_router.metrics import Metrics
from text_generation_router.parts import build_facts
from text_generation_router.settings import Settings
from text_generation_router.types import ShardInfo, TokenLimits

PAGE = Path(__file__).parents[2] / "docs" / "observability.md"
ROWS = re.compile(r"(?<=\| --- \| --- \| --- \| --- \|\n)(\| `tgi_.*\n)*")


def table() -> str:
    """The rows of all metrics, with the labels that they have from the start."""
    info = ShardInfo(False, "float32", "cpu", None, 0, True, True, "paged", 1)
    metrics = Metrics(TokenLimits(1, 2, 1, 1), 0, build=build_facts(Settings(), info))
    return "".join(map(_row, metrics.registry.metrics))


def _row(metric: Metric) -> str:
    return f"| `{metric.name}` | {metric.kind} | {_labels(metric.series)} | {metric.help} |\n"


def _labels(series: object) -> str:
    if isinstance(series, Constant):
        return ", ".join(f"`{name}`" for name in series.facts)
    if isinstance(series, OpenLabelled):
        return f"`{series.label}`: its name, or {', '.join(series.values)}"
    return f"`{series.label}`: {', '.join(series.values)}" if isinstance(series, Labelled) else ""


if __name__ == "__main__":
    PAGE.write_text(ROWS.sub(table(), PAGE.read_text()))
