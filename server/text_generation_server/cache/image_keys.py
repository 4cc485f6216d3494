"""Keys and values of images that layers attend to, by place, and which of them each row's tokens see.

What is kept of an image follows from the image alone, so that sequences share it: which places are whose, the host
knows (`places.py`), as it does of features that stand at positions. Knows no tower and no layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from text_generation_server.cache.paged import PagedCache, PagedSpec
from text_generation_server.device.copies import Integers, upload

NEVER = 1 << 62
"""A position that no sequence reaches."""


@dataclass(frozen=True, slots=True)
class ImageKeysSpec:
    """What is kept of features; satisfies `StateSpec`. kv: of one. per_image: features of an image, at most.

    There is room for an image of the largest size for each row. Rows may use what others leave.
    """

    kv: PagedSpec
    per_image: int
    bytes_per_slot: int = 0
    unshared: str = ""
    rewinds: bool = True

    @property
    def bytes_per_row(self) -> int:
        """See `StateSpec`."""
        return self.per_image * self.kv.bytes_per_slot

    def allocate(self, num_slots: int, num_rows: int, max_len: int) -> PagedCache:
        """See `StateSpec`: its slots are places of features."""
        return PagedCache(self.kv, num_rows * self.per_image)


@dataclass(frozen=True, slots=True)
class ViewsSpec:
    """Which places each row's tokens see; satisfies `StateSpec`. most_keys, most_views: of a row."""

    most_keys: int
    most_views: int
    device: torch.device
    bytes_per_slot: int = 0
    unshared: str = ""
    rewinds: bool = True

    @property
    def bytes_per_row(self) -> int:
        """See `StateSpec`."""
        return 8 * (self.most_keys + 3 * self.most_views + 2)

    def allocate(self, num_slots: int, num_rows: int, max_len: int) -> "RowViews":
        """See `StateSpec`."""
        return RowViews(self, num_rows)


class RowViews:
    """windows: [n, most_keys] int64, of which row i has the places from number i on of all rows' lists, end to end."""

    def __init__(self, spec: ViewsSpec, num_rows: int) -> None:
        self._most = spec.most_keys
        listed = torch.zeros((num_rows + 1) * self._most, dtype=torch.int64, device=spec.device)
        self.windows = listed.unfold(0, self._most, 1)
        self._places = listed[: -self._most].view(num_rows, self._most)
        shape = num_rows, spec.most_views
        self._begins = torch.full(shape, NEVER, dtype=torch.int64, device=spec.device)
        # The first view of a row is of what stands before all images.
        self._firsts, self._counts = torch.zeros(2, num_rows, shape[1] + 1, dtype=torch.int64, device=spec.device)

    def admit(self, rows: Tensor) -> None:
        """See `State`: until `hold` is called for a row it sees nothing."""
        self._begins[rows] = NEVER

    def hold(self, row: int, places: Integers, views: Sequence[tuple[int, int, int]]) -> None:
        """Let a row's tokens see keys in these places: by views of a position that each begins at, first and count."""
        begins, firsts, counts = zip(*views, strict=True)
        placed, *numbers = upload(self.windows.device, places, begins, firsts, counts)
        self._places[row, : len(placed)] = placed
        self._begins[row, : len(views)] = numbers[0]
        self._firsts[row, 1 : len(views) + 1], self._counts[row, 1 : len(views) + 1] = numbers[1], numbers[2]

    def of(self, rows: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """For tokens [T] int64 of these rows, at positions: a window [T] each, and how many of its first they see."""
        view = (self._begins[rows] <= positions[:, None]).sum(1)
        return rows * self._most + self._firsts[rows, view], self._counts[rows, view]
