"""A benchmark's outcome as JSON and as Markdown tables. Knows nothing of how it was measured."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from text_generation_benchmark.client import ShardInfo
from text_generation_benchmark.compare import Earlier, Figures
from text_generation_benchmark.measurements import Measurement
from text_generation_benchmark.settings import Settings
from text_generation_benchmark.tables import capital, number, plain, table

_STEPS = (
    ("Prefill", "prefill", "latency_ms"),
    ("Decode, each step", "decode", "step_latency_ms"),
    ("Decode, all steps of a run", "decode", "latency_ms"),
)
_DISTRIBUTION = ("average", "lowest", "highest", "p50", "p90", "p99")
_RATES = (("tokens/s", "tokens_per_second"), ("prompt tokens/s", "prompt_tokens_per_second"))


def document(
    settings: Settings, info: ShardInfo, measurements: Sequence[Measurement], earlier: Earlier | None
) -> dict[str, Any]:
    """Everything that is known, of values that JSON has."""
    workload = asdict(settings.workload)
    sampling = workload.pop("sampling")
    parameters = {"tokenizer_name": settings.tokenizer_name, **workload, **sampling}
    results = [asdict(measurement) for measurement in measurements]
    found = {"parameters": parameters, "shard": asdict(info), "results": results}
    if earlier is not None:
        found["comparison"] = {
            "with": str(earlier.path),
            "different_parameters": earlier.differences(parameters),
            "results": earlier.ratios(results),
        }
    return found


def markdown(found: dict[str, Any]) -> str:
    """The tables of a `document`, aligned so that they can be read in a terminal."""
    facts = {**found["parameters"], **{f"shard: {key}": value for key, value in found["shard"].items()}}
    parts = [
        table(["Parameter", "Value"], [[key.replace("_", " "), plain(value)] for key, value in facts.items()]),
        "## Measured",
        "Latencies in milliseconds; tokens/s are averages.",
        *_figures(found["results"], "{:.2f}", "{:.1f}"),
    ]
    if "comparison" in found:
        parts += _comparison(found["comparison"])
    return "\n\n".join(parts) + "\n"


def _comparison(comparison: dict[str, Any]) -> list[str]:
    head = (
        f"This run's figures divided by those of {comparison['with']}: "
        "latencies below 1 and tokens/s above 1 are gains."
    )
    differences = [
        [name.replace("_", " "), plain(ours), plain(theirs)]
        for name, (ours, theirs) in comparison["different_parameters"].items()
    ]
    parts = ["## Compared", head]
    if differences:
        parts += ["The parameters differ:", table(["Parameter", "This run", "The other"], differences)]
    return parts + (_figures(comparison["results"], "{:.3f}", "{:.3f}") or ["No batch size is in both."])


def _figures(results: Sequence[Figures], latency: str, rate: str) -> list[str]:
    """A titled table for each kind of step, of those that there are figures for."""
    parts = []
    for title, step, key in _STEPS:
        rates = [(head, name) for head, name in _RATES if any(name in result.get(step, {}) for result in results)]
        rows = [
            [str(result["batch_size"])]
            + [number(result, latency, step, key, column) for column in _DISTRIBUTION]
            + [number(result, rate, step, name, "average") for _, name in rates]
            for result in results
        ]
        if rows:
            heads = ["Batch", *map(capital, _DISTRIBUTION), *(head for head, _ in rates)]
            parts += [f"### {title}", table(heads, rows, str.rjust)]
    return parts
