"""What a family of models does with images, as data and two functions. Knows no family, no tokenizer, no tower."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from PIL import Image

from text_generation_server.images.pixels import Pixels
from text_generation_server.images.types import PreparedImage


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands for an image in a prompt: a text with the image's token once for each run of features.

    runs: of how many positions each such run is. features: that layers attend to, where they do not stand there.
    """

    text: str
    runs: tuple[int, ...]
    features: int = 0

    @property
    def tokens(self) -> int:
        """Positions that features fill."""
        return sum(self.runs)


class Processor(ABC):
    """Prepares images for a tower. Equal processors make equal pixels."""

    @abstractmethod
    def standing(self, height: int, width: int) -> Standing:
        """What stands for an image of this size, in pixels and upright. Raises BadImage for one that is not taken."""

    @abstractmethod
    def pixels(self, image: Image.Image) -> tuple[Pixels, tuple[int, ...]]:
        """What the tower is given of an RGB image, and its grid: both as the family counts them."""

    def prepare(self, image: Image.Image, source: bytes) -> PreparedImage:
        """All that is known of an RGB image. source: what tells its file from all others. Raises BadImage."""
        width, height = image.size
        standing = self.standing(height, width)
        pixels, grid = self.pixels(image)
        digest = blake2b(source, digest_size=32, key=blake2b(repr(self).encode()).digest()).digest()
        numbers = np.ascontiguousarray(pixels)
        return PreparedImage(numbers, (height, width), grid, standing.tokens, digest, standing.features)


def as_it_is(prompt: str) -> str:
    """The prompt of a family that changes nothing around images."""
    return prompt


@dataclass(frozen=True, slots=True)
class ImageFamily:
    """How a model takes images.

    token: the one whose positions features fill. mark: what chat templates write where an image is.
    whole: what the prompt becomes once all that stands for images is in it. framed: special tokens are in it then, and
    the tokenizer adds none.
    """

    processor: Processor
    token: str
    mark: str
    whole: Callable[[str], str] = as_it_is
    framed: bool = False
