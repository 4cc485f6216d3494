"""Two measurements side by side, of two servers or from two files: ratios of every cell that both have."""

import json
from pathlib import Path
from typing import Any

from text_generation_benchmark.compare import differences, ratios
from text_generation_benchmark.errors import BenchmarkError

Measured = dict[str, Any]
"""A server's measurement as it is in JSON: `name`, `server`, `settings`, and `cells` of a `workload` and a `load`."""


def read(path: Path) -> Measured:
    """The measurement in a file that --json wrote. Raises BenchmarkError."""
    try:
        servers = json.loads(path.read_text())["servers"]
        if len(servers) != 1:
            raise BenchmarkError(f"{path} holds {len(servers)} servers; compare files with one each")
        [measured] = servers
        found = {key: measured[key] for key in ("server", "settings", "cells")}
        if not all({"workload", "load", "level"} <= cell.keys() for cell in found["cells"]):
            raise ValueError("a cell has no workload or no load")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BenchmarkError(f"--compare {path} is not a file that `http --json` wrote: {error!r}") from error
    return {"name": path.stem, **found}


def compare(ours: Measured, theirs: Measured) -> dict[str, Any]:
    """The first's figures divided by the second's, under the same names."""
    others = {(cell["workload"], cell["load"]): cell for cell in theirs["cells"]}
    pairs = [(cell, others.get((cell["workload"], cell["load"]))) for cell in ours["cells"]]
    return {
        "names": [ours["name"], theirs["name"]],
        "different_settings": differences(ours["settings"], theirs["settings"]),
        "cells": [
            {"workload": cell["workload"], "load": cell["load"], **ratios(cell, other, without="level")}
            for cell, other in pairs
            if other is not None
        ],
    }
