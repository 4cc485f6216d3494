"""What state space layers keep of each sequence: of a fixed size, in its row. Knows no layer's arithmetic."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class RecurrentStateSpec:
    """The state of one rank of a model; satisfies `StateSpec`.

    channels: of the rank. numbers: that each remembers. windowed: channels of the rank's convolution. window: newest
    inputs that are kept of each of those. dtype: of those inputs; what is remembered is a sum of everything so far, in
    float32.
    """

    num_layers: int
    channels: int
    numbers: int
    windowed: int
    window: int
    dtype: torch.dtype
    device: torch.device
    bytes_per_slot: int = 0
    rewinds: bool = False
    unshared: str = "it keeps no state of where a prompt's beginning ends"

    @property
    def bytes_per_row(self) -> int:
        """Bytes of one sequence in all layers."""
        return self.num_layers * (self.channels * self.numbers * 4 + self.windowed * self.window * self.dtype.itemsize)

    def allocate(self, num_slots: int, num_rows: int, max_len: int) -> "RecurrentState":
        """See `StateSpec`."""
        return RecurrentState(self, num_rows)


class RecurrentState:
    """By layer and row: the inputs of a convolution [window, windowed], oldest first, and sums [channels, numbers].

    A row is cleared when a sequence begins there, not when one ends: a step that was launched ahead for a sequence
    that turned out to be at its end may still write to it.
    """

    def __init__(self, spec: RecurrentStateSpec, num_rows: int) -> None:
        shape = spec.num_layers, num_rows
        self._windows = torch.empty(*shape, spec.window, spec.windowed, dtype=spec.dtype, device=spec.device)
        self._sums = torch.empty(*shape, spec.channels, spec.numbers, dtype=torch.float32, device=spec.device)
        self.windows = self._windows.unbind()
        """Of each layer, [rows, window, windowed]."""
        self.sums = self._sums.unbind()
        """Of each layer, [rows, channels, numbers] float32."""

    def admit(self, rows: Tensor) -> None:
        """See `State`."""
        self._windows.index_fill_(1, rows, 0.0)
        self._sums.index_fill_(1, rows, 0.0)
