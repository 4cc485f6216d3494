"""A model directory's small files on images, and the values that families read there. Knows no family.

Named files: preprocessor_config.json, or the object `image_processor` of processor_config.json, where transformers 5
writes it; and config.json, which says what the tower makes of an image.
"""

from dataclasses import dataclass
from pathlib import Path

from text_generation_server.images.pixels import Colours
from text_generation_server.modelfiles import JsonObject, read_object, read_optional_object

_Three = tuple[float, float, float]

CLIP_MEAN: _Three = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: _Three = (0.26862954, 0.26130258, 0.27577711)
HALF: _Three = (0.5, 0.5, 0.5)

BILINEAR, BICUBIC, LANCZOS = 2, 3, 1
"""Pillow's numbers of the filters that configurations name."""


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """What a model directory says. model: config.json. images: how images are prepared."""

    model: JsonObject
    images: JsonObject

    @classmethod
    def read(cls, directory: Path) -> "ImageFiles":
        """Read both. Raises UnsupportedModel, ModelNotFound."""
        older = read_optional_object(directory / "preprocessor_config.json")
        newer = read_optional_object(directory / "processor_config.json").section("image_processor")
        return cls(read_object(directory / "config.json"), older if older.values else newer)

    def colours(self, mean: _Three, std: _Three) -> Colours:
        """`image_mean`, `image_std` and `rescale_factor`, or a family's own."""
        for step in ("do_resize", "do_rescale", "do_normalize"):
            if self.images.get(step, bool) is False:
                raise self.images.refusal(step, "true")
        scale = self.images.get("rescale_factor", float)
        return Colours(self._three("image_mean", mean), self._three("image_std", std), scale or 1 / 255)

    def filter(self, default: int) -> int:
        """`resample`, as Pillow numbers filters."""
        found = self.images.get("resample", int)
        if found is not None and found not in range(6):
            raise self.images.refusal("resample", "the number of one of Pillow's filters, 0 to 5")
        return default if found is None else found

    def _three(self, key: str, default: _Three) -> _Three:
        found = self.images.get(key, list)
        if found is None:
            return default
        if len(found) != 3 or not all(type(value) in (int, float) for value in found):
            raise self.images.refusal(key, "three numbers, one a channel")
        red, green, blue = (float(value) for value in found)
        return red, green, blue


def count(values: JsonObject, key: str, default: int) -> int:
    """A whole number of at least 1."""
    found = values.get(key, int)
    if found is not None and found < 1:
        raise values.refusal(key, "a whole number of at least 1")
    return default if found is None else found
