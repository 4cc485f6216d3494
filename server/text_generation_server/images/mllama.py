"""Llama 3.2 Vision: an image in as many tiles as suit it best, at one position of the prompt.

Source: transformers' `MllamaImageProcessor` and `MllamaProcessor`, 5.24.
"""

from dataclasses import dataclass
from math import floor

import numpy as np
from PIL import Image

from text_generation_server.images.family import ImageFamily, Processor, Standing
from text_generation_server.images.files import BILINEAR, HALF, ImageFiles, count
from text_generation_server.images.pixels import Colours, Pixels, as_bytes, resized, tiles

_TOKEN, _BEGIN = "<|image|>", "<|begin_of_text|>"

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class MllamaProcessor(Processor):
    """The grid is (rows, columns) of tiles. side: of a tile, in pixels. most: tiles. features: of a tile."""

    side: int
    most: int
    features: int
    colours: Colours
    resample: int

    def standing(self, height: int, width: int) -> Standing:
        """The image's token, once."""
        rows, columns = self._grid(height, width)
        return Standing(_TOKEN, (1,), rows * columns * self.features)

    def pixels(self, image: Image.Image) -> tuple[Pixels, Size]:
        """[tiles, 3, side, side], row by row; right of the image and below it is black."""
        rows, columns = self._grid(image.height, image.width)
        canvas = np.zeros((rows * self.side, columns * self.side, 3), dtype=np.uint8)
        height, width = self._fitted(image.height, image.width, *canvas.shape[:2])
        canvas[:height, :width] = as_bytes(resized(image, height, width, self.resample))
        return np.stack([self.colours.normalised(tile) for tile in tiles(canvas, self.side)]), (rows, columns)

    def _grid(self, height: int, width: int) -> Size:
        """That which an image has to grow for the least, or to shrink; of several the one with the fewest tiles."""
        most = range(1, self.most + 1)
        scales = {
            (rows, columns): min(rows * self.side / height, columns * self.side / width)
            for rows in most
            for columns in most
            if rows * columns <= self.most
        }
        larger = [scale for scale in scales.values() if scale >= 1]
        best = min(larger) if larger else max(scales.values())
        return min((grid for grid, scale in scales.items() if scale == best), key=lambda grid: grid[0] * grid[1])

    def _fitted(self, height: int, width: int, most_height: int, most_width: int) -> Size:
        """As large as there is room for, but no larger than it is where that fills a tile."""
        new_height = min(max(height, self.side), most_height)
        new_width = min(max(width, self.side), most_width)
        tall, wide = new_height / height, new_width / width
        if wide < tall:
            return min(floor(height * wide) or 1, new_height), new_width
        return new_height, min(floor(width * tall) or 1, new_width)


def mllama(files: ImageFiles) -> ImageFamily:
    """The family by a model's files."""
    vision, images = files.model.section("vision_config"), files.images
    side, most = count(vision, "image_size", 448), count(vision, "max_num_tiles", 4)
    if count(images.section("size"), "height", side) != side:
        raise images.section("size").refusal("height", str(side))
    if count(images, "max_image_tiles", most) != most:
        raise images.refusal("max_image_tiles", str(most))
    features = (side // count(vision, "patch_size", 14)) ** 2 + 1
    processor = MllamaProcessor(side, most, features, files.colours(HALF, HALF), files.filter(BILINEAR))
    return ImageFamily(processor, token=_TOKEN, mark=_TOKEN, whole=_begun, framed=True)


def _begun(prompt: str) -> str:
    """Where a prompt does not say so itself it begins behind the images that stand before its text."""
    if _BEGIN in prompt:
        return prompt
    text = prompt
    while text.startswith(_TOKEN):
        text = text.removeprefix(_TOKEN)
    return prompt[: len(prompt) - len(text)] + _BEGIN + text
