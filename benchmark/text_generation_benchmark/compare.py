"""This run's figures against those of an earlier one's JSON file. Knows no figure by name."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from text_generation_benchmark.errors import BenchmarkError

Figures = dict[str, Any]
"""A batch size's figures as they are in JSON: dictionaries of dictionaries of numbers, with a `batch_size`."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """What another run wrote."""

    path: Path
    parameters: dict[str, Any]
    results: list[Figures]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file that --json wrote. Raises BenchmarkError."""
        try:
            content = json.loads(path.read_text())
            results = content["results"]
            if not all(isinstance(result["batch_size"], int) for result in results):
                raise ValueError("a batch_size is not a whole number")
            return cls(path, dict(content.get("parameters", {})), results)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise BenchmarkError(f"--compare {path} is not a file that --json wrote: {error!r}") from error

    def differences(self, parameters: dict[str, Any]) -> dict[str, list[Any]]:
        """Parameters that are not alike, but for the batch sizes: [this run's, the earlier one's]."""
        return differences(parameters, self.parameters, without="batch_sizes")

    def ratios(self, results: Sequence[Figures]) -> list[Figures]:
        """This run's numbers divided by the earlier one's, under the same keys, for every batch size of both."""
        earlier = {result["batch_size"]: result for result in self.results}
        return [
            {"batch_size": ours["batch_size"], **ratios(ours, earlier[ours["batch_size"]], without="batch_size")}
            for ours in results
            if ours["batch_size"] in earlier
        ]


def differences(ours: dict[str, Any], theirs: dict[str, Any], without: str = "") -> dict[str, list[Any]]:
    """Values that are not alike, in pairs."""
    pairs = {name: [ours.get(name), theirs.get(name)] for name in sorted((ours.keys() | theirs.keys()) - {without})}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def ratios(ours: Figures, theirs: Figures, without: str = "") -> Figures:
    """The numbers of the first divided by those of the second, under the same keys, of whatever both have."""
    found: Figures = {}
    for key in ours.keys() & theirs.keys() - {without}:
        mine, other = ours[key], theirs[key]
        if isinstance(mine, dict) and isinstance(other, dict):
            found[key] = ratios(mine, other)
        elif isinstance(mine, int | float) and isinstance(other, int | float) and other:
            found[key] = mine / other
    return {key: found[key] for key in ours if key in found}
