"""Models that squeeze every image into one square: PaliGemma and Gemma 3.

Source: transformers' `SiglipImageProcessor`, `Gemma3ImageProcessor` and the two models' processors, 5.24.
"""

from dataclasses import dataclass

from PIL import Image

from text_generation_server.images.family import ImageFamily, Processor, Standing
from text_generation_server.images.files import BICUBIC, BILINEAR, HALF, ImageFiles, count
from text_generation_server.images.pixels import Colours, Pixels, as_bytes, resized

_PALIGEMMA, _BEGIN = "<image>", "<bos>"
_GEMMA, _GEMMA_OPENS, _GEMMA_CLOSES = "<image_soft_token>", "<start_of_image>", "<end_of_image>"


@dataclass(frozen=True, slots=True)
class SquareProcessor(Processor):
    """The grid is (1, 1). height, width: in pixels. text: what stands for an image, with its token once."""

    height: int
    width: int
    features: int
    text: str
    colours: Colours
    resample: int

    def standing(self, height: int, width: int) -> Standing:
        """The same for every image."""
        return Standing(self.text, (self.features,))

    def pixels(self, image: Image.Image) -> tuple[Pixels, tuple[int, int]]:
        """[1, 3, height, width]."""
        made = resized(image, self.height, self.width, self.resample)
        return self.colours.normalised(as_bytes(made))[None], (1, 1)


def paligemma(files: ImageFiles) -> ImageFamily:
    """PaliGemma 1 and 2 by a model's files: images before the text, which begins and ends by marks of its own."""
    vision = files.model.section("vision_config")
    per_side = count(vision, "image_size", 224) // count(vision, "patch_size", 14)
    processor = _square(files, per_side**2, _PALIGEMMA, BICUBIC)
    return ImageFamily(processor, token=_PALIGEMMA, mark=_PALIGEMMA, whole=_begun_behind_images, framed=True)


def _begun_behind_images(prompt: str) -> str:
    images, token, text = prompt.rpartition(_PALIGEMMA)
    return f"{images}{token}{_BEGIN}{text}\n"


def gemma3(files: ImageFiles) -> ImageFamily:
    """Gemma 3 by a model's files, without crops, which none of its makers' files ask for."""
    if files.images.get("do_pan_and_scan", bool):
        raise files.images.refusal("do_pan_and_scan", "false")
    text = f"\n\n{_GEMMA_OPENS}{_GEMMA}{_GEMMA_CLOSES}\n\n"
    processor = _square(files, count(files.model, "mm_tokens_per_image", 256), text, BILINEAR)
    return ImageFamily(processor, token=_GEMMA, mark=_GEMMA_OPENS)


def _square(files: ImageFiles, features: int, text: str, resample: int) -> SquareProcessor:
    size = files.images.section("size")
    return SquareProcessor(
        height=count(size, "height", 224),
        width=count(size, "width", 224),
        features=features,
        text=text,
        colours=files.colours(HALF, HALF),
        resample=files.filter(resample),
    )
