"""Where each position of a sequence with images is in time, rows and columns. Host only, no tensors."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Place = tuple[int, int, int]
"""An image's first position, and rows and columns of its features."""


def coordinates(length: int, images: Sequence[Place]) -> NDArray[np.int64]:
    """[3, length]: the time, row and column of each position (arXiv 2409.12191, section 2.1).

    All three of a text's token are one more than the largest before it. In an image time stands still, and rows and
    columns count from there. images: in their order.
    """
    placed = np.tile(np.arange(length), (3, 1))
    for start, rows, columns in images:
        end = start + rows * columns
        down, across = np.divmod(np.arange(rows * columns), columns)
        placed[:, start:end] = placed[0, start] + np.stack((np.zeros_like(down), down, across))
        placed[:, end:] += max(rows, columns) - rows * columns
    return placed
