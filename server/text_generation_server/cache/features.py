"""Features of images on the device, by place: what towers leave for the steps that compute the images' positions.

Knows no tower and no images. Which place is whose, the host knows (`places.py`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

PLACES = 1 << 15
"""Features of all images together of which some position is yet to be computed, and of some that come again."""


@dataclass(frozen=True, slots=True)
class FeaturesSpec:
    """width: of a feature. Satisfies `StateSpec`.

    The pool is of one size, whatever the number of slots and rows, and is there while a warm-up measures what is free.
    Other sequences may take over keys and values that were computed with features: tags tell images apart.
    """

    width: int
    dtype: torch.dtype
    device: torch.device
    bytes_per_slot: int = 0
    bytes_per_row: int = 0
    unshared: str = ""
    rewinds: bool = True

    def allocate(self, num_slots: int, num_rows: int, max_len: int) -> "Features":
        """See `StateSpec`."""
        return Features(self)


class Features:
    """pool: [places, width]."""

    def __init__(self, spec: FeaturesSpec) -> None:
        self.pool = torch.empty(PLACES, spec.width, dtype=spec.dtype, device=spec.device)

    def admit(self, rows: Tensor) -> None:
        """See `State`: features are written before the first step that reads them, so there is nothing to forget."""
