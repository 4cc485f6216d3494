"""Qwen2-VL and Qwen2.5-VL: an image of nearly its own size, in patches.

Source: transformers' `Qwen2VLImageProcessor` and `Qwen2VLProcessor`, 5.24.
"""

from dataclasses import dataclass
from math import ceil, floor, sqrt

from PIL import Image

from text_generation_server.errors import BadImage
from text_generation_server.images.family import ImageFamily, Processor, Standing
from text_generation_server.images.files import BICUBIC, CLIP_MEAN, CLIP_STD, ImageFiles, count
from text_generation_server.images.pixels import Colours, Pixels, as_bytes, resized

_OPENS, _TOKEN, _CLOSES = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"

_MOST_UNEQUAL = 200
"""How many times as long as the other a side may be."""


@dataclass(frozen=True, slots=True)
class Qwen2VLProcessor(Processor):
    """The grid is (1, rows, columns) of patches. least, most: pixels of the resized image.

    patch: the side of a patch in pixels. merge: so many patches by as many become a feature, and come together.
    """

    least: int
    most: int
    patch: int
    merge: int
    colours: Colours
    resample: int

    def standing(self, height: int, width: int) -> Standing:
        """The image's token for each feature, with a mark before and behind."""
        height, width = self._size(height, width)
        features = height * width // (self.patch * self.merge) ** 2
        return Standing(f"{_OPENS}{_TOKEN}{_CLOSES}", (features,))

    def pixels(self, image: Image.Image) -> tuple[Pixels, tuple[int, int, int]]:
        """[patches, 3 * patch * patch]: those that become one feature one after the other.

        transformers has each patch twice, as frames of a film that stands still; here it is once.
        """
        made = resized(image, *self._size(image.height, image.width), self.resample)
        values, side, merge = self.colours.normalised(as_bytes(made)), self.patch, self.merge
        rows, columns = values.shape[1] // side, values.shape[2] // side
        parts = values.reshape(3, rows // merge, merge, side, columns // merge, merge, side)
        patches = parts.transpose(1, 4, 2, 5, 0, 3, 6).reshape(rows * columns, 3 * side * side)
        return patches, (1, rows, columns)

    def _size(self, height: int, width: int) -> tuple[int, int]:
        """Whole features, within the bounds, and of nearly the same shape."""
        if max(height, width) > _MOST_UNEQUAL * min(height, width):
            raise BadImage(f"it is {width}x{height} pixels, one side more than {_MOST_UNEQUAL} times the other")
        unit = self.patch * self.merge
        new = round(height / unit) * unit, round(width / unit) * unit
        if new[0] * new[1] > self.most:
            ratio = sqrt(height * width / self.most)
            return max(unit, floor(height / ratio / unit) * unit), max(unit, floor(width / ratio / unit) * unit)
        if new[0] * new[1] < self.least:
            ratio = sqrt(self.least / (height * width))
            return ceil(height * ratio / unit) * unit, ceil(width * ratio / unit) * unit
        return new


def qwen2_vl(files: ImageFiles) -> ImageFamily:
    """The family by a model's files."""
    images = files.images
    size = images.section("size")
    processor = Qwen2VLProcessor(
        least=count(images, "min_pixels", count(size, "shortest_edge", 56 * 56)),
        most=count(images, "max_pixels", count(size, "longest_edge", 28 * 28 * 1280)),
        patch=count(images, "patch_size", 14),
        merge=count(images, "merge_size", 2),
        colours=files.colours(CLIP_MEAN, CLIP_STD),
        resample=files.filter(BICUBIC),
    )
    return ImageFamily(processor, token=_TOKEN, mark=f"{_OPENS}{_TOKEN}{_CLOSES}")
