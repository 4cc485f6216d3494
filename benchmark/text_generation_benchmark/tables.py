"""Numbers and tables of a report, in Markdown that can be read in a terminal too. Knows no figure by name."""

from collections.abc import Callable
from typing import Any


def number(result: dict[str, Any], form: str, *path: str) -> str:
    """The number at a path into dictionaries, a dash where there is none."""
    value: Any = result
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return form.format(value) if isinstance(value, int | float) else "–"


def table(heads: list[str], rows: list[list[str]], align: Callable[[str, int], str] = str.ljust) -> str:
    """A table whose columns are as wide as their widest cells."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    rule = ["-" * (width - 1) + (":" if align is str.rjust else "-") for width in widths]
    lines = [[align(cell, width) for cell, width in zip(row, widths, strict=True)] for row in (heads, rule, *rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def plain(value: Any) -> str:
    """A value of JSON as people write it."""
    if isinstance(value, dict):
        value = [f"{key} {one}" for key, one in value.items()]
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    return "–" if value in (None, "") else str(value)


def capital(word: str) -> str:
    """A column's head; percentiles stay small."""
    return word if word.startswith("p") else word.capitalize()
