"""Which rows of a recurrent layer's state a step goes on with. Knows no state and no layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Self

import torch
from torch import Tensor

from text_generation_server.cache.layout import RowLayout
from text_generation_server.device.copies import fill


class Answers:
    """Where layers of replayed steps put what they make, in the same memory for all of them and for all such steps.

    Each answer is read before the next of its kind is written. What is there for tokens of no row is finite.
    """

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def place(self, kind: str, like: Tensor) -> Tensor:
        """For an answer of this kind, of the size of `like` [T, D]. The largest is to be asked for first."""
        if kind not in self._held or self._held[kind].numel() < like.numel():
            self._held[kind] = torch.zeros_like(like, memory_format=torch.contiguous_format)
        return self._held[kind].view(-1)[: like.numel()].view(like.shape)


@dataclass(frozen=True, slots=True)
class RecurrentPlan:
    """A step's R rows, each with the tokens that go on with its state: the preparation of a step.

    rows: [R] int64. ends: [R + 1] int64, from 0: where each row's tokens begin and end.
    are_singles: whether every row has one token.
    count: [1] int64, how many of the rows there are, where only the device knows; None for all.
    answers: where layers put what they make; None for new tensors.
    """

    rows: Tensor
    ends: Tensor
    are_singles: bool
    count: Tensor | None = None
    answers: Answers | None = None

    @classmethod
    def of(cls, layout: RowLayout) -> Self:
        """For one step."""
        return cls(layout.device_rows, layout.cu_seqlens_q, max(layout.query_lens) == 1)

    @classmethod
    def of_singles(cls, rows: Tensor) -> Self:
        """For steps of one token of each of these rows [R] int64, which are looked up whenever a step runs."""
        return cls(rows, torch.arange(len(rows) + 1, device=rows.device), True)

    @property
    def plan(self) -> Self:
        """Itself: a step's preparation is its plan."""
        return self

    def suits(self, seq_lens: Sequence[int]) -> bool:
        """See `DecodePreparation`: any lengths, as nobody asks for them."""
        return True

    def prepare(self, seq_lens: Sequence[int]) -> None:
        """See `DecodePreparation`: there is nothing to do."""

    def on_host(self) -> list[tuple[int, int, int]]:
        """Of each row that there is: the row, where its tokens begin and end. Waits for the device."""
        count = len(self.rows) if self.count is None else int(self.count)
        rows, ends = self.rows[:count].tolist(), self.ends[: count + 1].tolist()
        return [*zip(rows, ends, ends[1:], strict=False)]

    def answer(self, kind: str, like: Tensor) -> Tensor:
        """A contiguous tensor of the size of `like` [T, D] for a layer's answer of this kind."""
        if self.answers is None:
            return torch.empty(like.shape, dtype=like.dtype, device=like.device)
        return self.answers.place(kind, like)

    def piece(self, first: int, past: int, size: int) -> Self:
        """The same for one token of the step; more are not asked for, as none could be repeated to fill a piece up."""
        assert past - first == size == 1
        of_row = torch.searchsorted(self.ends, first, right=True) - 1
        return type(self).of_singles(self.rows[of_row][None])


class ReplayedPlan:
    """Plans for any step of up to so many tokens: what kernels read of it is where they were recorded with it."""

    def __init__(self, tokens: int, device: torch.device, answers: Answers) -> None:
        """answers: as in `RecurrentPlan`, the same for all plans of a model."""
        self._packed = torch.zeros(2 + 2 * tokens + 1, dtype=torch.int64, device=device)
        rows, ends = self._packed[2 : 2 + tokens], self._packed[2 + tokens :]
        self.plan = RecurrentPlan(rows, ends, False, self._packed[:1], answers)
        """Of the step that was prepared last."""

    def suits(self, query_lens: Sequence[int], seq_lens: Sequence[int]) -> bool:
        """See `TokenPreparation`: any rows."""
        return True

    def prepare(self, rows: Sequence[int], query_lens: Sequence[int], seq_lens: Sequence[int]) -> None:
        """See `TokenPreparation`."""
        missing = [0] * (len(self.plan.rows) - len(rows))
        fill(self._packed, [len(rows), 0], rows, missing, [*accumulate(query_lens, initial=0)])
