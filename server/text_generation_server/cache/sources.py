"""Where the keys and values of each row's source are: of the input that an encoder read. Knows no encoder.

They are in slots of the paged cache, those of the prompt's positions, which no token that is decoded has use for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from text_generation_server.device.copies import upload


@dataclass(frozen=True, slots=True)
class SourcesSpec:
    """Which slots those are, of each row; satisfies `StateSpec`. What is in the slots is counted with them."""

    device: torch.device
    bytes_per_slot: int = 0
    bytes_per_row: int = 0
    rewinds: bool = True
    unshared: str = "what it keeps of each token follows from the whole input"

    def allocate(self, num_slots: int, num_rows: int, max_len: int) -> "Sources":
        """See `StateSpec`."""
        return Sources(num_rows, max_len, self.device)


class Sources:
    """table: [rows, positions] int64, the slots of each row's source. lens: [rows] int64, how many those are.

    A row that never had one, as that which pads recorded steps, has one of one slot.
    """

    def __init__(self, num_rows: int, max_len: int, device: torch.device) -> None:
        self.table = torch.zeros(num_rows, max_len, dtype=torch.int64, device=device)
        self.lens = torch.ones(num_rows, dtype=torch.int64, device=device)

    def admit(self, rows: Tensor) -> None:
        """See `State`: `hold` is called for each row that begins."""

    def hold(self, rows: Sequence[int], slots: Sequence[Tensor]) -> None:
        """Let rows have their sources in these slots [each its own length]."""
        places, lens = upload(self.table.device, rows, [*map(len, slots)])
        self.lens[places] = lens
        for row, of_row in zip(rows, slots, strict=True):
            self.table[row, : len(of_row)] = of_row
