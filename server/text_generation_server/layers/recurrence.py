"""Which rows of a recurrent layer's state a step goes on with. Knows no state and no layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from text_generation_server.cache.layout import RowLayout


@dataclass(frozen=True, slots=True)
class RecurrentPlan:
    """A step of R rows: the preparation of one, or of every step of one token a row.

    query_lens: tokens of each. rows: [R] int64. ends: [R + 1] int64, from 0: where each row's tokens begin and end.
    """

    query_lens: Sequence[int]
    rows: Tensor
    ends: Tensor

    @classmethod
    def of(cls, layout: RowLayout) -> Self:
        """For one step."""
        return cls(layout.query_lens, layout.device_rows, layout.cu_seqlens_q)

    @classmethod
    def of_singles(cls, rows: Tensor) -> Self:
        """For steps of one token of each of these rows [R] int64, which are looked up whenever a step runs."""
        return cls((1,) * len(rows), rows, torch.arange(len(rows) + 1, device=rows.device))

    @property
    def are_singles(self) -> bool:
        """Whether every row has one token."""
        return max(self.query_lens) == 1

    def suits(self, seq_lens: Sequence[int]) -> bool:
        """See `DecodePreparation`: any lengths, as nobody asks for them."""
        return True

    def prepare(self, seq_lens: Sequence[int]) -> None:
        """See `DecodePreparation`: there is nothing to do."""

    def piece(self, first: int, past: int, size: int) -> Self:
        """The same for one token of the step; more are not asked for, as none could be repeated to fill a piece up."""
        assert past - first == size == 1
        of_row = torch.searchsorted(self.ends, first, right=True) - 1
        return type(self).of_singles(self.rows[of_row][None])
