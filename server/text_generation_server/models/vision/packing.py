"""The order in which the features of an image's tiles stand in a prompt. Knows no towers."""

import torch
from torch import Tensor

from text_generation_server.images.llava_next import unpadded
from text_generation_server.images.types import PreparedImage


class TilePacking:
    """The whole image, then its tiles as one map of patches without what only fills the image up to them.

    newline: [hidden], behind each row of the map.
    """

    def __init__(self, newline: Tensor) -> None:
        self._newline = newline

    def __call__(self, features: Tensor, image: PreparedImage) -> Tensor:
        """[tiles, n, hidden] of an image to [tokens, hidden]."""
        whole, tiles = features[0], features[1:]
        rows, columns = image.grid
        side = round(tiles.shape[1] ** 0.5)
        patches = tiles.view(rows, columns, side, side, -1).transpose(1, 2)
        filled = _unpadded(patches.reshape(rows * side, columns * side, -1), image.original)
        newlines = self._newline.expand(len(filled), 1, -1)
        return torch.cat((whole, torch.cat((filled, newlines), 1).flatten(0, 1)))


def _unpadded(patches: Tensor, original: tuple[int, int]) -> Tensor:
    """[rows, columns, hidden] without the rows or columns that only fill an image of this size up to them."""
    rows, columns = patches.shape[:2]
    kept_rows, kept_columns = unpadded(original, (rows, columns))
    top, left = (rows - kept_rows) // 2, (columns - kept_columns) // 2
    return patches[top : top + kept_rows, left : left + kept_columns]
