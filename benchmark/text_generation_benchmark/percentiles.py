"""Percentiles of samples. Knows nothing of what they measure."""

import math
from collections.abc import Sequence


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value that `percent` % of the ascending samples do not exceed, on the line between the two nearest ones.

    Source: Hyndman and Fan, Sample Quantiles in Statistical Packages (1996), definition 7.
    """
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
