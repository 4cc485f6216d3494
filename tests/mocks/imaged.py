"""A family of images whose features can be counted by eye, and files of images."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from text_generation_server.images.family import ImageFamily, Processor, Standing
from text_generation_server.images.pixels import Pixels, as_bytes

TOKEN, OPENS, CLOSES = "<image>", "<look>", "</look>"
SPECIAL = (TOKEN, OPENS, CLOSES)


@dataclass(frozen=True, slots=True)
class OnePerPixel(Processor):
    """As many features as pixels, between a mark before and behind."""

    def standing(self, height: int, width: int) -> Standing:
        return Standing(f"{OPENS}{TOKEN}{CLOSES}", (height * width,))

    def pixels(self, image: Image.Image) -> tuple[Pixels, tuple[int, ...]]:
        return as_bytes(image).astype(np.float32).transpose(2, 0, 1)[None], (image.height, image.width)


FAMILY = ImageFamily(OnePerPixel(), token=TOKEN, mark=TOKEN)


def picture(width: int = 3, height: int = 2, form: str = "PNG", shade: int = 0, **options: Any) -> bytes:
    """A file of an image whose pixels are all different, unless it is large."""
    values = np.arange(height * width * 3, dtype=np.uint32).reshape(height, width, 3) * 7 + shade
    data = io.BytesIO()
    Image.fromarray((values % 256).astype(np.uint8)).save(data, form, **options)
    return data.getvalue()
