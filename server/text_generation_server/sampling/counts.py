"""How often each token occurs in each penalised sequence: a table on the device, rows lent to sequences.

Knows nothing of requests or penalties. Only sequences that asked for a penalty hold a row: a row costs 4 bytes a token
of the vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from text_generation_server.device.copies import to_device

_FIRST_ROWS = 8


class CountsRows(NamedTuple):
    """The rows that a sequence holds, None where nothing is counted for it: of all its tokens, and of its answer's."""

    whole: int | None = None
    answer: int | None = None


class TokenCounts:
    """Token counts [n, vocab] int32, grown on demand.

    `take` and `release` are host bookkeeping and may run ahead of the device. `reset`, `of` and `add` touch the table
    and must all run on the compute stream, in step order: a row may be lent again while a step of its former owner is
    still in flight, because the new owner's `reset` comes after that step.
    """

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self._table = torch.zeros(0, vocab_size, dtype=torch.int32, device=device)  # [n, vocab]
        self._free: list[int] = []
        self._lent = 0

    def lend(self, whole: bool, answer: bool) -> CountsRows:
        """Rows for a new sequence that needs these counts."""
        return CountsRows(self.take() if whole else None, self.take() if answer else None)

    def take_back(self, rows: CountsRows) -> None:
        """Undo a `lend`."""
        for row in rows:
            if row is not None:
                self.release(row)

    def take(self) -> int:
        """A row for a new sequence; its content is undefined until `reset`."""
        self._lent += 1
        return self._free.pop() if self._free else self._lent - 1

    def release(self, row: int) -> None:
        """Give a row back."""
        self._lent -= 1
        self._free.append(row)

    def reset(self, row: int, token_ids: Sequence[int]) -> None:
        """Let `row` count exactly `token_ids`, usually the prompt."""
        if row >= len(self._table):
            self._grow(row + 1)
        ids = to_device(token_ids, torch.int64, self._table.device)
        self._table[row].zero_().scatter_add_(0, ids, torch.ones_like(ids, dtype=torch.int32))

    def of(self, rows: Tensor) -> Tensor:
        """The counts [R, vocab] int32 of `rows` [R] int64."""
        return self._table[rows]

    def add(self, rows: Tensor, token_ids: Tensor) -> None:
        """Count one more token [R] int64 in each of the distinct `rows` [R] int64."""
        self._table[rows, token_ids] += 1

    def _grow(self, needed: int) -> None:
        rows = max(needed, 2 * len(self._table), _FIRST_ROWS)
        table = self._table.new_zeros(rows, self._table.shape[1])
        table[: len(self._table)] = self._table
        self._table = table
