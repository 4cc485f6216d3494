"""The arithmetic of pixels that all families share: resized as Pillow does, cut, and normalised. Knows no family.

Equal to transformers' processors with the backend `pil` (5.24), to the last bit. Those with the backend `torchvision`
resize a little differently, by up to two of 255 steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Bytes = npt.NDArray[np.uint8]
"""[height, width, 3] of 0 to 255."""

Pixels = npt.NDArray[np.float32]

_ROWS = 64
"""Of an image that are normalised at once: the indices that numpy makes of them first then fit a cache."""


@dataclass(frozen=True, slots=True)
class Colours:
    """How bytes become what a tower was trained on: times `scale`, less `mean`, by `std` of each channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: float = 1 / 255

    def normalised(self, image: Bytes) -> Pixels:
        """float32 [3, height, width]."""
        # Of 256 values there are few results, so that each is computed once.
        values = (np.arange(256).astype(np.float64) * self.scale).astype(np.float32)
        channels = zip(self.mean, self.std, strict=True)
        tables = [(values - np.float32(mean)) / np.float32(std) for mean, std in channels]
        made = np.empty((3, *image.shape[:2]), dtype=np.float32)
        for start in range(0, len(image), _ROWS):
            rows = slice(start, start + _ROWS)
            for channel, table in enumerate(tables):
                np.take(table, image[rows, :, channel], out=made[channel, rows], mode="clip")
        return made


def resized(image: Image.Image, height: int, width: int, resample: int) -> Image.Image:
    """The image in another size. resample: the number of Pillow's filter, as configurations have it."""
    return image.resize((width, height), resample=Image.Resampling(resample))


def as_bytes(image: Image.Image) -> Bytes:
    """The bytes of an image in RGB."""
    return np.asarray(image)


def tiles(image: Bytes, size: int) -> list[Bytes]:
    """Squares of `size`, row by row; both sides must be multiples of it."""
    height, width, _ = image.shape
    return [image[y : y + size, x : x + size] for y in range(0, height, size) for x in range(0, width, size)]


def padded(images: Sequence[Pixels]) -> Pixels:
    """[images, 3, height, width] of the largest, with zeros right of and below smaller ones."""
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    stack = np.zeros((len(images), 3, height, width), dtype=np.float32)
    for place, image in zip(stack, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return stack
