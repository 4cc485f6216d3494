"""Files of images of every kind, good and bad: the right pixels, or a BadImage that says why."""

import contextlib
import io

import numpy as np
import pytest
from PIL import Image
from transformers.image_transforms import convert_to_rgb

from mocks.imaged import png
from text_generation_server.errors import BadImage
from text_generation_server.images.markdown import read_data, split
from text_generation_server.images.reading import MAX_PIXELS, count_pixels, read_image

RANDOM = np.random.default_rng(0)
PHOTO = Image.fromarray(RANDOM.integers(0, 256, (20, 30, 3), dtype=np.uint8))
LOSSLESS = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}}


def file(image, form, **options):
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


@pytest.mark.parametrize("form", LOSSLESS)
def test_pixels_are_those_of_the_file(form):
    read = read_image(file(PHOTO, form, **LOSSLESS[form]))
    assert read.mode == "RGB" and np.array_equal(read, PHOTO)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_of_several_frames_the_first_is_seen(form):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    options = {} if form == "GIF" else LOSSLESS[form]
    read = read_image(file(frames[0], form, save_all=True, append_images=frames[1:], **options))
    assert read.getpixel((4, 4)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_other_colours_are_what_transformers_makes_of_them(mode):
    image = PHOTO.convert(mode)
    if "A" in mode:
        image.putalpha(Image.fromarray(RANDOM.integers(0, 256, (20, 30), dtype=np.uint8)))
    data = file(image, "JPEG" if mode == "YCbCr" else "TIFF")
    assert np.array_equal(read_image(data), convert_to_rgb(Image.open(io.BytesIO(data)), return_numpy=True))


def test_pixels_are_counted_before_anything_is_decoded():
    assert count_pixels(png(8000, 8000)) == 64_000_000


def test_an_inverted_jpeg_for_print_is_not_a_negative():
    white = file(Image.new("CMYK", (8, 8)), "JPEG")
    assert read_image(white).getpixel((4, 4)) == (255, 255, 255)


def test_what_a_palette_makes_transparent_is_white():
    data = file(PHOTO.convert("P"), "PNG", transparency=PHOTO.convert("P").getpixel((0, 0)))
    assert read_image(data).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_greys_of_16_bits_keep_their_shades(form):
    greys = Image.fromarray(np.array([[0, 0x0100, 0x8000, 0xFFFF]], dtype=np.uint16))
    assert np.asarray(read_image(file(greys, form)))[0, :, 0].tolist() == [0, 1, 128, 255]
    colours = png(1, 1, bits=16, pixels=b"\0" + b"\x80\x00\x40\x00\xff\xff")
    assert read_image(colours).getpixel((0, 0)) == (128, 64, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", LOSSLESS)
def test_images_are_upright_however_the_camera_was_held(form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = read_image(file(PHOTO, form, exif=exif, **LOSSLESS[form]))
    pixels = np.asarray(PHOTO)
    pixels = pixels.transpose(1, 0, 2) if orientation > 4 else pixels
    rows, columns = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}[
        orientation
    ]
    assert np.array_equal(turned, pixels[::rows, ::columns])


def test_a_camera_that_writes_nonsense_takes_good_pictures():
    assert read_image(file(PHOTO, "PNG", exif=b"Exif\0\0nonsense")).size == PHOTO.size


FORMS = {form: file(PHOTO, form) for form in ("PNG", "JPEG", "GIF", "WEBP", "TIFF")}
BAD = {
    "empty": (b"", "it is empty"),
    "text": (b"hello", "none of PNG, JPEG, GIF, WEBP, TIFF"),
    "another format": (file(PHOTO, "BMP"), "none of PNG"),
    "a drawing": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "none of PNG"),
    "no pixels": (png(0, 0), "damaged"),
    "no rows": (png(5, 0), "damaged"),
    "too many pixels": (png(9000, 9000), f"9000x9000 pixels, expected at most {MAX_PIXELS}"),
    "far too many": (png(60000, 60000), f"more than {MAX_PIXELS} pixels"),
    "more than it tells": (png(4, 4, pixels=bytes(3)), "damaged"),
    "real numbers": (file(Image.new("F", (4, 4)), "TIFF"), "a kind that is not taken, F"),
    "colours of a laboratory": (file(Image.new("LAB", (4, 4)), "TIFF"), "a kind that is not taken, LAB"),
    **{f"half a {form}": (data[: len(data) // 2], "damaged") for form, data in FORMS.items()},
    **{f"a {form}'s head": (data[:30], "damaged") for form, data in FORMS.items()},
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_says_why(name):
    data, reason = BAD[name]
    with pytest.raises(BadImage, match=reason):
        read_image(data)


@pytest.mark.parametrize("form", FORMS)
def test_damage_anywhere_is_an_image_or_a_refusal(form):
    random, data = np.random.default_rng(1), FORMS[form]
    for _ in range(150):
        broken = bytearray(data)
        for place in random.integers(0, len(data), random.integers(1, 9)):
            broken[place] = random.integers(0, 256)
        with contextlib.suppress(BadImage):
            read_image(bytes(broken))


def test_markdown_is_taken_apart_in_one_go():
    assert split("a![](x)b![](y)") == (["a", "b", ""], ["x", "y"])
    assert split("![](x") == (["![](x"], []) and split("no ![image](x)") == (["no ![image](x)"], [])
    text = "![](" * 500_000  # a search for every beginning's end would take hours
    assert split(text) == ([text], [])


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("data:image/png;base64,QUI=", (b"AB", "image/png")),
        ("data:image/jpeg;base64;base64,QUI=", (b"AB", "image/jpeg")),
        ("DATA:;base64,", (b"", "")),
    ],
)
def test_data_urls(url, expected):
    assert read_data(url) == expected


@pytest.mark.parametrize("url", ["data:image/png,AB", "data:image/png;base64,A", "data:image/png;base64,Ä", "data:"])
def test_data_urls_that_are_none(url):
    with pytest.raises(BadImage):
        read_data(url)
