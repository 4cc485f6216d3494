"""Files of images, as clients send them, to upright RGB. Trusts nothing in them. Knows no model.

Decoders are Pillow's. What is transparent is white behind, and the first of several frames counts: both as in
transformers 5.24 (`load_image`, `convert_to_rgb`).
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import (
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from text_generation_server.errors import BadImage

FORMATS = tuple(
    plugin.format
    for plugin in (
        PngImagePlugin.PngImageFile,
        JpegImagePlugin.JpegImageFile,
        GifImagePlugin.GifImageFile,
        WebPImagePlugin.WebPImageFile,
        TiffImagePlugin.TiffImageFile,
    )
)
"""Those that text-generation-inference takes; Pillow's other decoders are never asked."""

MAX_PIXELS = 2**26
"""Of the largest image: 200 MB when decoded, which takes a second. Files of a few bytes may claim any size."""

_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
"""Kinds of pixels whose colours are known; floating-point numbers, for one, have no agreed white."""

_ORIENTATION = 0x0112
"""The EXIF tag that says how a camera was held."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def count_pixels(data: bytes) -> int:
    """How many pixels a file says that it has, which takes no time. Raises BadImage."""
    with _opened(data) as image:
        return image.width * image.height


def read_image(data: bytes) -> Image.Image:
    """The image in a file, in mode RGB and loaded. Takes as long as decoding does. Raises BadImage."""
    with _opened(data) as image:
        image.load()
        return _rgb(_upright(image))


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """The image in a file, of which nothing is decoded yet. Whatever goes wrong with it here is a BadImage."""
    if not data:
        raise BadImage("it is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image.size)
            yield image
    except BadImage:
        raise
    except UnidentifiedImageError as error:
        raise BadImage(f"it is none of {', '.join(FORMATS)}, or damaged at its beginning") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(f"it has more than {MAX_PIXELS} pixels") from error
    except Exception as error:  # decoders raise what they like at damaged files
        raise BadImage("it is damaged, or ends too early") from error


def _check_size(size: tuple[int, int]) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise BadImage(f"it is {width}x{height} pixels, expected at least 1x1")
    if width * height > MAX_PIXELS:
        raise BadImage(f"it is {width}x{height} pixels, expected at most {MAX_PIXELS} in all")


def _upright(image: Image.Image) -> Image.Image:
    try:
        turned = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # the picture is good whatever a camera wrote beside it
        turned = None
    return image if turned is None else image.transpose(turned)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_wide(image)
    if image.mode not in _MODES:
        raise BadImage(f"its pixels are of a kind that is not taken, {image.mode}")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _from_wide(image: Image.Image) -> Image.Image:
    """Greys of 16 bits, of which the upper 8 are seen: Pillow would take all above 255 for white."""
    values = np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")
