"""Where tokens are in time, rows and columns, by slot, for rotations that turn by these. Knows no images and no layers.

They follow from a prompt's content, as keys do that are turned by them, and belong to a slot as those do.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

AXES = 3
"""Time, row, column."""


@dataclass(frozen=True, slots=True)
class CoordinatesSpec:
    """Satisfies `StateSpec`. The coordinates of all positions of a sequence are written when it is admitted."""

    device: torch.device
    bytes_per_slot: int = AXES * torch.int32.itemsize
    bytes_per_row: int = 0
    unshared: str = ""
    rewinds: bool = True

    def allocate(self, num_slots: int, num_rows: int, max_len: int) -> "Coordinates":
        """See `StateSpec`."""
        return Coordinates(num_slots, self.device)


class Coordinates:
    """Those of each slot."""

    def __init__(self, num_slots: int, device: torch.device) -> None:
        self._table = torch.zeros(AXES, num_slots, dtype=torch.int32, device=device)

    def admit(self, rows: Tensor) -> None:
        """See `State`: slots are written, not rows forgotten."""

    def write(self, slots: Tensor, coordinates: Tensor) -> None:
        """Let these [3, N] be those of slots [N], both int64."""
        self._table.index_copy_(1, slots, coordinates.int())

    def of(self, slots: Tensor) -> Tensor:
        """Those of tokens in slots [T] int64: [3, T] int64."""
        return self._table.index_select(1, slots).long()
