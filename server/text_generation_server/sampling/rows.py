"""Which rows of a step a sampling rule concerns, on the host while planning and on the device while running.

Knows nothing of what is done to these rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from text_generation_server.engine.types import SamplingParams, WatermarkParams


@dataclass(frozen=True, slots=True)
class Rows:
    """Distinct rows of a step; `index` [R] int64 is None when they are all of them in order, which saves the copies."""

    index: Tensor | None

    @classmethod
    def of(cls, chosen: Sequence[int], size: int, device: torch.device) -> Self:
        """The rows `chosen`, in increasing order, of a step of `size` rows."""
        return cls(None if len(chosen) == size else torch.tensor(chosen, dtype=torch.int64, device=device))

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

    `counts_rows` has the row of `TokenCounts` of each row, None where nothing is penalised. `watermark` is how those
    rows are marked that ask for it.
    """

    params: Sequence[SamplingParams]
    counts_rows: Sequence[int | None]
    vocab_size: int
    device: torch.device
    watermark: WatermarkParams

    def where(self, concerns: Callable[[SamplingParams], bool]) -> list[int]:
        """The rows whose parameters satisfy `concerns`."""
        return [row for row, params in enumerate(self.params) if concerns(params)]

    def rows(self, chosen: Sequence[int]) -> Rows:
        """`chosen` on the device."""
        return Rows.of(chosen, len(self.params), self.device)

    def column(self, chosen: Sequence[int], value: Callable[[SamplingParams], float], dtype: torch.dtype) -> Tensor:
        """One parameter of each chosen row [R, 1]."""
        return torch.tensor([[value(self.params[row])] for row in chosen], dtype=dtype, device=self.device)

    def counts(self, chosen: Sequence[int]) -> Tensor:
        """The rows of `TokenCounts` of the chosen rows [R] int64. ValueError where one has none."""
        held = [self.counts_rows[row] for row in chosen]
        if None in held:
            raise ValueError("a row with a repetition or frequency penalty needs a row of token counts, got None")
        return torch.tensor(held, dtype=torch.int64, device=self.device)
