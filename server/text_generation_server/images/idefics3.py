"""Idefics3 and SmolVLM: an image in tiles of one size, with their places told, and the whole as one more tile.

Source: transformers' `Idefics3ImageProcessor` and `Idefics3Processor`, 5.24. Their `get_number_of_image_patches` counts
other tiles than they make for some sizes; what they make counts here.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
from PIL import Image

from text_generation_server.images.family import ImageFamily, Processor, Standing
from text_generation_server.images.files import HALF, LANCZOS, ImageFiles, count
from text_generation_server.images.pixels import Colours, Pixels, as_bytes, resized, tiles

_TOKEN, _FENCE, _WHOLE = "<image>", "<fake_token_around_image>", "<global-img>"

_LARGEST = 4096
"""Pixels of the longer side, whatever is asked for."""


@dataclass(frozen=True, slots=True)
class Idefics3Processor(Processor):
    """The grid is (rows, columns) of tiles, (0, 0) where there is only the whole image; that is the last tile.

    longest: what the longer side becomes first, in pixels. side: of a tile. features: of each tile.
    """

    longest: int
    side: int
    features: int
    splits: bool
    colours: Colours
    resample: int

    def standing(self, height: int, width: int) -> Standing:
        """The image's token for each tile, with its place before it, a row a line."""
        rows, columns = self._grid(height, width)
        lines = [
            "".join(f"{_FENCE}<row_{row + 1}_col_{column + 1}>{_TOKEN}" for column in range(columns)) + "\n"
            for row in range(rows)
        ]
        text = "".join(lines) + ("\n" if lines else "") + f"{_FENCE}{_WHOLE}{_TOKEN}{_FENCE}"
        return Standing(text, (self.features,) * (rows * columns + 1))

    def pixels(self, image: Image.Image) -> tuple[Pixels, tuple[int, int]]:
        """[rows * columns + 1, 3, side, side]."""
        first = self._first_size(image.height, image.width)
        image, grid = resized(image, *first, self.resample), self._grid(image.height, image.width)
        parts = []
        if self.splits:
            image = resized(image, *self._multiple(*first), self.resample)
            parts = tiles(as_bytes(image), self.side) if grid != (0, 0) else []
        whole = as_bytes(resized(image, self.side, self.side, self.resample))
        return np.stack([self.colours.normalised(tile) for tile in (*parts, whole)]), grid

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        if not self.splits:
            return 0, 0
        rows, columns = (edge // self.side for edge in self._multiple(*self._first_size(height, width)))
        return (0, 0) if rows == columns == 1 else (rows, columns)

    def _first_size(self, height: int, width: int) -> tuple[int, int]:
        """With the longer side as asked for, and the other even."""
        ratio = width / height
        if width >= height:
            width, height = self.longest, max(_even(int(self.longest / ratio)), 1)
        else:
            width, height = max(_even(int(self.longest * ratio)), 1), self.longest
        ratio = width / height
        if width >= height and width > _LARGEST:
            width, height = _LARGEST, max(int(_LARGEST / ratio), 1)
        elif height > _LARGEST:
            width, height = max(int(_LARGEST * ratio), 1), _LARGEST
        return height, width

    def _multiple(self, height: int, width: int) -> tuple[int, int]:
        """Whole tiles, the shorter side by what the longer has become."""
        ratio = width / height
        if width >= height:
            width = self._whole_tiles(width)
            return self._whole_tiles(int(width / ratio)), width
        height = self._whole_tiles(height)
        return height, self._whole_tiles(int(height * ratio))

    def _whole_tiles(self, edge: int) -> int:
        return ceil(edge / self.side) * self.side


def _even(edge: int) -> int:
    return edge + edge % 2


def idefics3(files: ImageFiles) -> ImageFamily:
    """The family by a model's files."""
    side = count(files.images.section("max_image_size"), "longest_edge", 364)
    patch = count(files.model.section("vision_config"), "patch_size", 32)
    splits = files.images.get("do_image_splitting", bool)
    processor = Idefics3Processor(
        longest=count(files.images.section("size"), "longest_edge", 4 * 364),
        side=side,
        features=(side // patch // count(files.model, "scale_factor", 2)) ** 2,
        splits=True if splits is None else splits,
        colours=files.colours(HALF, HALF),
        resample=files.filter(LANCZOS),
    )
    return ImageFamily(processor, token=_TOKEN, mark=_TOKEN)
