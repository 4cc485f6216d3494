"""Values of options, as argparse wants them read. Knows no option by name."""

import argparse
import math
from collections.abc import Callable


def count(least: int) -> Callable[[str], int]:
    """Reads whole numbers of at least `least`."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number of at least {least}")
        return int(text)

    return read


def finite(text: str) -> float:
    """Reads any number but infinities."""
    value = _number(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r}, expected a number")
    return value


def positive(text: str) -> float:
    """Reads numbers above 0."""
    value = _number(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r}, expected a number above 0")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
