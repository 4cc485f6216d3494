"""How the patches of an image of any size are laid out for a tower: where each is, and in which windows. No layers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from text_generation_server.device.copies import upload
from text_generation_server.layers.rotary import Angles, AxialRotary
from text_generation_server.specs.vision import PackedSpec


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Of tiles of n patches each. order: [n] int64, which patch comes where, and back: [n] int64, the reverse.

    angles: of each patch, in that order. windows: of patches that see each other where not all do, how many there are
    of so many patches each, one after the other. near, weights: [4, n] each, the learned positions that are nearest to
    a patch, and how much each counts; None where none are learned.
    """

    order: Tensor
    back: Tensor
    angles: Angles
    windows: Sequence[tuple[int, int]]
    near: Tensor | None = None
    weights: Tensor | None = None


class Arranging:
    """Makes arrangements. rotary: of the tower's heads."""

    def __init__(self, spec: PackedSpec, rotary: AxialRotary, device: torch.device) -> None:
        self._spec = spec
        self._rotary = rotary
        self._device = device

    def __call__(self, rows: int, columns: int) -> Arrangement:
        """That of an image of so many rows and columns of patches."""
        merged = self._spec.merged
        squares = windows_of(rows // merged, columns // merged, self._spec.window)
        order = np.concatenate([window.ravel() for window in squares])
        patches = (order[:, None] * merged**2 + np.arange(merged**2)).ravel()
        down, across = _places(rows, columns, merged)[:, patches]
        first, back, down, across = upload(self._device, patches, np.argsort(patches), down, across)
        angles = self._rotary.angles(torch.stack((down, across)))
        windows = [(len(some), some.shape[1] * merged**2) for some in squares]
        if not self._spec.side:
            return Arrangement(first, back, angles, windows)
        return Arrangement(first, back, angles, windows, *stretched(down, across, (rows, columns), self._spec.side))


def stretched(down: Tensor, across: Tensor, grid: tuple[int, int], side: int) -> tuple[Tensor, Tensor]:
    """Of a square of positions, `side` in a row, stretched over a grid: the four that are nearest to each patch, and
    how much each counts, [4, n]. Corners lie on corners.
    """
    near, weights = [], []
    for places, count in zip((down, across), grid, strict=True):
        exact = places.float() * (side - 1) / max(count - 1, 1)
        before = exact.long()
        share = exact - before
        near.append((before, (before + 1).clamp(max=side - 1)))
        weights.append((1 - share, share))
    corners = [(a, b) for a in range(2) for b in range(2)]
    return (
        torch.stack([near[0][a] * side + near[1][b] for a, b in corners]),
        torch.stack([weights[0][a] * weights[1][b] for a, b in corners]),
    )


def windows_of(rows: int, columns: int, side: int) -> list[NDArray[np.int64]]:
    """Numbers of squares in windows of `side` by `side` of them, [windows, squares of one] for each size of window.

    Those at the right and the lower end have what is left. side: 0 for one window.
    """
    squares = np.arange(rows * columns).reshape(rows, columns)
    side = side or max(rows, columns)
    down, across = rows // side * side, columns // side * side
    parts = [part for half in (squares[:down], squares[down:]) for part in (half[:, :across], half[:, across:])]
    return [_cut(part, min(side, part.shape[0]), min(side, part.shape[1])) for part in parts if part.size]


def _cut(squares: NDArray[np.int64], height: int, width: int) -> NDArray[np.int64]:
    rows, columns = squares.shape
    parts = squares.reshape(rows // height, height, columns // width, width)
    return parts.transpose(0, 2, 1, 3).reshape(-1, height * width)


def _places(rows: int, columns: int, merged: int) -> NDArray[np.int64]:
    """[2, rows · columns]: the row and column of each patch, those of a square one after the other."""
    grid = np.indices((rows, columns)).reshape(2, rows // merged, merged, columns // merged, merged)
    return grid.transpose(0, 1, 3, 2, 4).reshape(2, -1)
