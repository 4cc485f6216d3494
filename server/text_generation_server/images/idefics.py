"""Idefics (1): an image squeezed into one square, at one position of the prompt.

Source: transformers' `IdeficsImageProcessor` and `IdeficsProcessor`, 5.24.
"""

import re
from dataclasses import dataclass

from PIL import Image

from text_generation_server.images.family import ImageFamily, Processor, Standing
from text_generation_server.images.files import BICUBIC, CLIP_MEAN, CLIP_STD, ImageFiles, count
from text_generation_server.images.pixels import Colours, Pixels, as_bytes, resized

_TOKEN, _FENCE, _BEGIN = "<image>", "<fake_token_around_image>", "<s>"
_FENCED = f"{_FENCE}{_TOKEN}{_FENCE}"
_SPACED = re.compile(rf" *({re.escape(_FENCED)}) *")


@dataclass(frozen=True, slots=True)
class IdeficsProcessor(Processor):
    """The grid is (1, 1). side: in pixels. features: of an image."""

    side: int
    features: int
    colours: Colours
    resample: int

    def standing(self, height: int, width: int) -> Standing:
        """The image's token between fences, whatever the size."""
        return Standing(_FENCED, (1,), self.features)

    def pixels(self, image: Image.Image) -> tuple[Pixels, tuple[int, int]]:
        """[1, 3, side, side]."""
        made = resized(image, self.side, self.side, self.resample)
        return self.colours.normalised(as_bytes(made))[None], (1, 1)


def idefics(files: ImageFiles) -> ImageFamily:
    """The family by a model's files."""
    vision = files.model.section("vision_config")
    side = count(vision, "image_size", 224)
    found = count(files.images, "image_size", count(files.images.section("size"), "height", side))
    if found != side:
        raise files.images.refusal("image_size", str(side))
    features = (side // count(vision, "patch_size", 14)) ** 2 + 1
    if files.model.get("use_resampler", bool):
        features = count(files.model.section("perceiver_config"), "resampler_n_latents", 64)
    processor = IdeficsProcessor(side, features, files.colours(CLIP_MEAN, CLIP_STD), files.filter(BICUBIC))
    return ImageFamily(processor, token=_TOKEN, mark=_TOKEN, whole=_whole, framed=True)


def _whole(prompt: str) -> str:
    """No spaces around images, one fence between two, and the mark that every prompt begins with."""
    fenced = _SPACED.sub(r"\1", prompt.strip(" ")).replace(_FENCE * 2, _FENCE)
    return fenced if fenced.startswith(_BEGIN) else _BEGIN + fenced
