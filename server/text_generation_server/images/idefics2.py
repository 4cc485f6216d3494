"""Idefics2: an image whole, and its four quarters before it where the model asks for them, each in its own size.

Source: transformers' `Idefics2ImageProcessor` and `Idefics2Processor`, 5.24.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from text_generation_server.errors import BadImage
from text_generation_server.images.family import ImageFamily, Processor, Standing
from text_generation_server.images.files import BILINEAR, HALF, ImageFiles, count
from text_generation_server.images.pixels import Colours, Pixels, as_bytes, padded, resized

_TOKEN, _FENCE = "<image>", "<fake_token_around_image>"
_WORD_BEHIND = re.compile(rf"{re.escape(_FENCE)}(?=[^\s<])")


@dataclass(frozen=True, slots=True)
class Idefics2Processor(Processor):
    """The grid is (height, width) of each tile in pixels, one pair after the other; zeros beyond are no image.

    shortest, longest: bounds of a tile's sides in pixels, of which the first wins. features: of each tile.
    """

    shortest: int
    longest: int
    features: int
    splits: bool
    colours: Colours
    resample: int

    def standing(self, height: int, width: int) -> Standing:
        """The image's token between fences, for each tile."""
        if self.splits and min(height, width) < 2:
            raise BadImage(f"it is {width}x{height} pixels, expected at least 2x2, as it is cut in four")
        tiles = 5 if self.splits else 1
        return Standing(f"{_FENCE}{_TOKEN}{_FENCE}" * tiles, (self.features,) * tiles)

    def pixels(self, image: Image.Image) -> tuple[Pixels, tuple[int, ...]]:
        """[tiles, 3, height, width] of the largest: upper left, upper right, lower left, lower right, and the whole."""
        parts = [*self._quarters(image), image] if self.splits else [image]
        made = [self.colours.normalised(as_bytes(self._resized(part))) for part in parts]
        return padded(made), tuple(side for tile in made for side in tile.shape[1:])

    def _quarters(self, image: Image.Image) -> Iterator[Image.Image]:
        x, y, right, bottom = image.width // 2, image.height // 2, image.width, image.height
        for box in ((0, 0, x, y), (x, 0, right, y), (0, y, x, bottom), (x, y, right, bottom)):
            yield image.crop(box)

    def _resized(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        ratio = width / height
        if width >= height and width > self.longest:
            width, height = self.longest, int(self.longest / ratio)
        elif height > width and height > self.longest:
            width, height = int(self.longest * ratio), self.longest
        return resized(image, max(height, self.shortest), max(width, self.shortest), self.resample)


def _whole(prompt: str) -> str:
    """One fence between images, and a space between the last and a word."""
    return _WORD_BEHIND.sub(f"{_FENCE} ", prompt.replace(_FENCE * 2, _FENCE))


def idefics2(files: ImageFiles) -> ImageFamily:
    """The family by a model's files."""
    size = files.images.section("size")
    processor = Idefics2Processor(
        shortest=count(size, "shortest_edge", 378),
        longest=count(size, "longest_edge", 980),
        features=count(files.model.section("perceiver_config"), "resampler_n_latents", 64),
        splits=files.images.get("do_image_splitting", bool) or False,
        colours=files.colours(HALF, HALF),
        resample=files.filter(BILINEAR),
    )
    return ImageFamily(processor, token=_TOKEN, mark=_TOKEN, whole=_whole)
