"""LLaVA-Next: an image whole, and once more in tiles of the resolution among several that suits it best.

Source: transformers' `LlavaNextImageProcessor` and `LlavaNextProcessor`, 5.24; LLaVA-1.6's `anyres`.
"""

from dataclasses import dataclass
from math import ceil, inf

import numpy as np
from PIL import Image

from text_generation_server.images.family import ImageFamily, Processor, Standing
from text_generation_server.images.files import BICUBIC, CLIP_MEAN, CLIP_STD, ImageFiles, count
from text_generation_server.images.pixels import Bytes, Colours, Pixels, as_bytes, resized, tiles
from text_generation_server.modelfiles import JsonObject

Size = tuple[int, int]

_TOKEN = "<image>"
_RESOLUTIONS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))


@dataclass(frozen=True, slots=True)
class LlavaNextProcessor(Processor):
    """The grid is (rows, columns) of tiles; the whole image is the tile before them.

    side: of a tile, in pixels; patch: of the tower's. resolutions: (height, width) that tiles may make up.
    Features of tiles are those of one picture without the rows or columns that were only added to fit, with a further
    one at each row's end.
    """

    side: int
    patch: int
    resolutions: tuple[Size, ...]
    colours: Colours
    resample: int

    def standing(self, height: int, width: int) -> Standing:
        """The image's token as often as there are features."""
        rows, columns = self._grid(height, width)
        per_side = self.side // self.patch
        kept_rows, kept_columns = unpadded((height, width), (rows * per_side, columns * per_side))
        return Standing(_TOKEN, (per_side**2 + kept_rows * (kept_columns + 1),))

    def pixels(self, image: Image.Image) -> tuple[Pixels, Size]:
        """[1 + rows * columns, 3, side, side]."""
        rows, columns = self._grid(image.height, image.width)
        whole = as_bytes(resized(image, self.side, self.side, self.resample))
        parts = tiles(self._fitted(image, rows * self.side, columns * self.side), self.side)
        return np.stack([self.colours.normalised(tile) for tile in (whole, *parts)]), (rows, columns)

    def _grid(self, height: int, width: int) -> Size:
        best_height, best_width = _best((height, width), self.resolutions)
        return best_height // self.side, best_width // self.side

    def _fitted(self, image: Image.Image, height: int, width: int) -> Bytes:
        """As large as fits, in the middle of black."""
        by_width, by_height = width / image.width, height / image.height
        if by_width < by_height:
            new = min(ceil(image.height * by_width), height), width
        else:
            new = height, min(ceil(image.width * by_height), width)
        top, left = (height - new[0]) // 2, (width - new[1]) // 2
        canvas = np.zeros((height, width, 3), dtype=np.uint8)
        canvas[top : top + new[0], left : left + new[1]] = as_bytes(resized(image, *new, self.resample))
        return canvas


def unpadded(original: Size, grid: Size) -> Size:
    """Rows and columns of features that show the image: those of a grid without what was added to fit.

    original: height and width of the image. Where the two rounded counts differ, as many are cut on both sides.
    """
    (height, width), (rows, columns) = original, grid
    if width / height > columns / rows:
        shown = int(round(height * (columns / width), 7))
        return rows - (rows - shown) // 2 * 2, columns
    shown = int(round(width * (rows / height), 7))
    return rows, columns - (columns - shown) // 2 * 2


def _best(original: Size, resolutions: tuple[Size, ...]) -> Size:
    """The resolution that keeps most pixels of the image; of several the smallest."""
    height, width = original

    def merit(resolution: Size) -> tuple[int, int]:
        scale = min(resolution[1] / width, resolution[0] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - resolution[0] * resolution[1]

    best, highest = resolutions[0], (0, -inf)
    for resolution in resolutions:
        if (found := merit(resolution)) > highest:
            best, highest = resolution, found
    return best


def llava_next(files: ImageFiles) -> ImageFamily:
    """The family by a model's files."""
    vision = files.model.section("vision_config")
    side, patch = count(vision, "image_size", 336), count(vision, "patch_size", 14)
    for key in ("size", "crop_size"):
        section = files.images.section(key)
        for name, value in section.values.items():
            if value not in (side, None):
                raise section.refusal(name, f"{side}, the size of the tower's images")
    if files.model.get("vision_feature_select_strategy", str) not in (None, "default"):
        raise files.model.refusal("vision_feature_select_strategy", '"default"')
    resolutions = _resolutions(files.images) or _resolutions(files.model) or _RESOLUTIONS
    colours, resample = files.colours(CLIP_MEAN, CLIP_STD), files.filter(BICUBIC)
    return ImageFamily(LlavaNextProcessor(side, patch, resolutions, colours, resample), token=_TOKEN, mark=_TOKEN)


def _resolutions(values: JsonObject) -> tuple[Size, ...]:
    found = values.get("image_grid_pinpoints", list) or []
    for one in found:
        if not isinstance(one, list) or len(one) != 2 or not all(type(side) is int and side > 0 for side in one):
            raise values.refusal("image_grid_pinpoints", "pairs of height and width")
    return tuple((height, width) for height, width in found)
