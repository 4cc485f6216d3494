"""The order in which the features of an image's tiles stand in a prompt. Knows no towers."""

import torch
from torch import Tensor

from text_generation_server.images.types import PreparedImage


class TilePacking:
    """The whole image, then its tiles as one map of patches without what only fills the image up to them.

    newline: [hidden], behind each row of the map. The arithmetic is that by which positions are counted
    (`images/`): both follow the reference, rounding included.
    """

    def __init__(self, newline: Tensor) -> None:
        self._newline = newline

    def __call__(self, features: Tensor, image: PreparedImage) -> Tensor:
        """[tiles, n, hidden] of an image to [tokens, hidden]."""
        whole, tiles = features[0], features[1:]
        if not len(tiles):
            return torch.cat((whole, self._newline[None]))
        rows, columns = image.grid
        side = round(tiles.shape[1] ** 0.5)
        patches = tiles.view(rows, columns, side, side, -1).transpose(1, 2)
        filled = _unpadded(patches.reshape(rows * side, columns * side, -1), *image.original)
        newlines = self._newline.expand(len(filled), 1, -1)
        return torch.cat((whole, torch.cat((filled, newlines), 1).flatten(0, 1)))


def _unpadded(patches: Tensor, height: int, width: int) -> Tensor:
    """[rows, columns, hidden] without the rows or columns that fill an image of this height and width up to it."""
    rows, columns = patches.shape[:2]
    if width / height > columns / rows:
        cut = (rows - int(round(height * (columns / width), 7))) // 2
        return patches[cut : rows - cut]
    cut = (columns - int(round(width * (rows / height), 7))) // 2
    return patches[:, cut : columns - cut]
