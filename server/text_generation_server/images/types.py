"""What is known of an image between the processor that prepared it and the tower that reads it. No files, no models."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class PreparedImage:
    """What a tower is given of one image.

    pixels: float32 [tiles, channels, height, width], normalised; or [patches, channels * patch height * patch width]
        where a family packs patches.
    original: (height, width) in pixels, upright and before resizing.
    grid: tiles or patches by (time,) height, width, as the family counts them.
    tokens: how many positions of the prompt it fills.
    features: that layers attend to; 0 where features stand at the positions that it fills, one at each.
    digest: of its file and of how it was prepared: equal digests mean equal features.
    """

    pixels: npt.NDArray[np.float32]
    original: tuple[int, int]
    grid: tuple[int, ...]
    tokens: int
    digest: bytes
    features: int = 0

    @property
    def kept(self) -> int:
        """How many features are kept of it."""
        return self.features or self.tokens


@dataclass(frozen=True, slots=True, eq=False)
class PlacedImage:
    """An image in a prompt: `positions` are the prompt's positions that its features fill, in order."""

    image: PreparedImage
    positions: tuple[int, ...] | range
