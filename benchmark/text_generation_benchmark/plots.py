"""Latencies and rates over the batch size, drawn as PNG files. Knows figures only; needs the extra `bench`."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from text_generation_benchmark.compare import Earlier, Figures
from text_generation_benchmark.errors import BenchmarkError


class Plot(NamedTuple):
    """A file, its axis, and the distribution that it shows: a line at the median, in a band from the lowest to p90."""

    name: str
    axis: str
    step: str
    key: str


_PLOTS = (
    Plot("prefill-latency", "prefill (ms)", "prefill", "latency_ms"),
    Plot("prefill-throughput", "prompt tokens/s", "prefill", "prompt_tokens_per_second"),
    Plot("decode-latency", "decode step (ms)", "decode", "step_latency_ms"),
    Plot("decode-throughput", "generated tokens/s", "decode", "tokens_per_second"),
)


def require_matplotlib(flag: str = "--plots") -> None:
    """Raises BenchmarkError, before anything is measured, if nothing could be drawn afterwards."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise BenchmarkError(
            f"{flag} needs matplotlib ({error}); install the extra: pip install 'kvrun[bench]'"
        ) from error


def draw(folder: Path, results: Sequence[Figures], earlier: Earlier | None, label: str = "this run") -> list[Path]:
    """Write the files into a folder, which is made if it is not there; an earlier run is drawn beside this one."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [(label, results)]
    if earlier is not None:
        lines.append((earlier.path.stem, earlier.results))
    return [_draw(plot, folder / f"{plot.name}.png", lines) for plot in _PLOTS]


def _draw(plot: Plot, path: Path, lines: Sequence[tuple[str, Sequence[Figures]]]) -> Path:
    from matplotlib.figure import Figure  # an extra, and slow to import

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="batch size", ylabel=plot.axis)
    for label, results in lines:
        points = sorted((r["batch_size"], d) for r in results if (d := r.get(plot.step, {}).get(plot.key)))
        sizes = [size for size, _ in points]
        axes.plot(sizes, [d["p50"] for _, d in points], marker="o", label=f"{label}, median")
        axes.fill_between(sizes, [d["lowest"] for _, d in points], [d["p90"] for _, d in points], alpha=0.2)
    sizes = sorted({result["batch_size"] for _, results in lines for result in results})
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
    return path
