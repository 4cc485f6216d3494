"""A family of images whose features can be counted by eye, and files of images."""

import io
import struct
import zlib
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


def png(width: int, height: int, colours: int = 2, bits: int = 8, pixels: bytes = b"") -> bytes:
    """A file in PNG whose head claims what it likes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
