"""Which rows of a step a sampling rule concerns, on the host while planning and on the device while running.

Knows nothing of what is done to these rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from text_generation_server.device.copies import to_device
from text_generation_server.sampling.counts import CountsRows
from text_generation_server.sampling.params import SamplingParams, WatermarkParams

MASKED = float("-inf")
"""The score of a token that cannot be chosen."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Distinct rows of a step; `index` [R] int64 is None when they are all of them in order, which saves the copies."""

    index: Tensor | None

    @classmethod
    def of(cls, chosen: Sequence[int], size: int, device: torch.device) -> Self:
        """The rows `chosen`, in increasing order, of a step of `size` rows."""
        return cls(None if len(chosen) == size else to_device(chosen, torch.int64, device))

    def take(self, values: Tensor) -> Tensor:
        """These rows [R, ...] of `values` [S, ...]."""
        return values if self.index is None else values[self.index]

    def put(self, values: Tensor, part: Tensor) -> Tensor:
        """`values` [S, ...] with these rows replaced by `part` [R, ...]; may write into `values`."""
        if self.index is None:
            return part
        values[self.index] = part
        return values


@dataclass(frozen=True, slots=True)
class PlannedRows:
    """What every row of a step asks for, from which each rule picks the rows it concerns.

    `counts_rows` has the rows of `TokenCounts` of each row. `watermark` is how those rows are marked that ask for it.
    """

    params: Sequence[SamplingParams]
    counts_rows: Sequence[CountsRows]
    vocab_size: int
    device: torch.device
    watermark: WatermarkParams

    def where(self, concerns: Callable[[SamplingParams], bool]) -> list[int]:
        """The rows whose parameters satisfy `concerns`."""
        return [row for row, params in enumerate(self.params) if concerns(params)]

    def part(self, chosen: Sequence[int]) -> Self:
        """What only the chosen rows ask for."""
        return replace(
            self,
            params=[self.params[row] for row in chosen],
            counts_rows=[self.counts_rows[row] for row in chosen],
        )

    def rows(self, chosen: Sequence[int]) -> Rows:
        """`chosen` on the device."""
        return Rows.of(chosen, len(self.params), self.device)

    def column(self, chosen: Sequence[int], value: Callable[[SamplingParams], float], dtype: torch.dtype) -> Tensor:
        """One parameter of each chosen row [R, 1]."""
        return to_device([value(self.params[row]) for row in chosen], dtype, self.device)[:, None]

    def counts(self, chosen: Sequence[int], held: Callable[[CountsRows], int | None]) -> Tensor:
        """The row of `TokenCounts` that each chosen row has `held` [R] int64. ValueError where one has none."""
        found = [counts_row for row in chosen if (counts_row := held(self.counts_rows[row])) is not None]
        if len(found) < len(chosen):
            raise ValueError("a row with a penalty needs a row of token counts, got None")
        return to_device(found, torch.int64, self.device)

    def each(self, tokens: Callable[[SamplingParams], Sequence[int]], chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Every pair of a place among the chosen rows and one of that row's `tokens`: [P] int64 both."""
        pairs = [(place, token) for place, row in enumerate(chosen) for token in tokens(self.params[row])]
        places, ids = zip(*pairs, strict=True) if pairs else ((), ())
        return to_device(places, torch.int64, self.device), to_device(ids, torch.int64, self.device)


class Planned(Protocol):
    """A rule that is made for the rows it concerns."""

    @classmethod
    def plan(cls, rows: PlannedRows) -> Self | None:
        """The rule for the rows that want it, None when no row does."""


Rule = TypeVar("Rule", bound=Planned)


def planned(kinds: Sequence[type[Rule]], rows: PlannedRows) -> tuple[Rule, ...]:
    """The rules of these kinds that some row wants, in order."""
    return tuple(rule for kind in kinds if (rule := kind.plan(rows)) is not None)
