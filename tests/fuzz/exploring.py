"""Runs a check on many generated inputs, the same ones each time. Knows nothing of what is checked."""

from collections.abc import Callable
from typing import TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

T = TypeVar("T")

_ROUND = 1000
"""Hypothesis remembers all it has generated in a round."""


def explore_series(inputs: SearchStrategy[T], check: Callable[[list[T]], None], count: int, name: str) -> None:
    """Call `check` with series of `inputs` until there were `count`; of those that fail the shortest is shown.

    `name` decides which series these are.
    """
    done = series = rounds = 0

    def counted(values: list[T]) -> None:
        nonlocal done, series
        done, series = done + len(values), series + 1
        check(values)

    while done < count:
        limits = settings(
            max_examples=min(_ROUND, -(-(count - done) // 8)),
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        series_of = st.lists(inputs, min_size=1, max_size=12) | st.lists(inputs, min_size=12, max_size=40)
        seed(f"{name} {rounds}")(limits(given(series_of)(counted)))()
        rounds += 1
    print(f"{done} inputs in {series} series")
