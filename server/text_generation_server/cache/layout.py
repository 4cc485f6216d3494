"""Which sequences a step computes, and how much of each: what whoever mixes tokens prepares itself from."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol, Self

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Block:
    """Positions [start, end) of a row that see each other. row: its index in the step, which computes all of them but
    those that it has computed before.
    """

    row: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class RowLayout:
    """The rows of one step, R of them, as the host knows them and on the device.

    rows: row of the slot table of each sequence in the step.
    query_lens: tokens of each that are computed now.
    seq_lens: keys that the last of them sees.
    block_table: [rows, positions] int64 on the device, the slot of each position of each row.
    device_rows, device_seq_lens: [R] int64. cu_seqlens_q: [R + 1] int64, from 0.
    blocks: of positions that see each other; all others see what is before them.
    """

    rows: Sequence[int]
    query_lens: Sequence[int]
    seq_lens: Sequence[int]
    block_table: Tensor
    device_rows: Tensor
    device_seq_lens: Tensor
    cu_seqlens_q: Tensor
    blocks: Sequence[Block] = ()

    @classmethod
    def of(
        cls,
        rows: Sequence[int],
        query_lens: Sequence[int],
        seq_lens: Sequence[int],
        block_table: Tensor,
        blocks: Sequence[Block] = (),
    ) -> Self:
        """A layout whose numbers are copied to the slot table's device one by one."""
        lists = rows, seq_lens, [*accumulate(query_lens, initial=0)]
        device_rows, device_lens, ends = (
            torch.tensor(numbers, dtype=torch.int64, device=block_table.device) for numbers in lists
        )
        return cls(rows, query_lens, seq_lens, block_table, device_rows, device_lens, ends, blocks)


class DecodePreparation(Protocol):
    """What is prepared once for steps of one token a row: every step's rows are read from the same tensors."""

    def suits(self, seq_lens: Sequence[int]) -> bool:
        """Whether it is made for rows of these lengths."""

    def prepare(self, seq_lens: Sequence[int]) -> None:
        """The host's part of a step, before it is replayed: the numbers are in the tensors by then."""


class TokenPreparation(Protocol):
    """What is prepared once for steps of so many tokens, of whichever rows. Tokens behind a step's are padding."""

    def suits(self, query_lens: Sequence[int], seq_lens: Sequence[int]) -> bool:
        """Whether it is made for rows with so many tokens and keys each."""

    def prepare(self, rows: Sequence[int], query_lens: Sequence[int], seq_lens: Sequence[int]) -> None:
        """Before a replay for rows of the table, laid end to end, as in `RowLayout`."""
