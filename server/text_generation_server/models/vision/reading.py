"""Runs a tower for images that are being admitted, and leaves their features in their places."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor

from text_generation_server.cache.coordinates import Coordinates, CoordinatesSpec
from text_generation_server.cache.features import PLACES, Features, FeaturesSpec
from text_generation_server.cache.states import State
from text_generation_server.device.copies import to_device, upload
from text_generation_server.images.types import PreparedImage
from text_generation_server.models.step import ImageInput, ImagePlaces, SeenImages
from text_generation_server.models.vision.arrangement import Arranging
from text_generation_server.models.vision.coordinates import coordinates
from text_generation_server.models.vision.tower import Tower
from text_generation_server.specs.vision import Sight

PATCHES = 1 << 14
"""Of how many patches the tower computes at once: enough to fill a GPU, and a bound to the memory that takes."""


class Packing(Protocol):
    """What puts the features of an image's tiles in the order of its positions."""

    def __call__(self, features: Tensor, image: PreparedImage) -> Tensor:
        """[tiles, n, hidden] to [tokens, hidden]."""


@dataclass(frozen=True, slots=True)
class ImageReader:
    """Satisfies `Reader`. projector: [N, n, tower's width] to [N, n', hidden]. features: what is kept, and where.

    tiles: of how many the tower computes at once; of patches, where they come packed. patch_size: of tiles of sizes of
    their own; None where all are alike. arranging: of packed patches, None where there are tiles. coordinates: of
    tokens, None where rotations turn by positions; merged: patches in a row of the square that becomes a feature.
    """

    tower: Tower
    projector: Callable[[Tensor], Tensor]
    packing: Packing
    features: FeaturesSpec
    sight: Sight
    tiles: int
    patch_size: int | None = None
    arranging: Arranging | None = None
    coordinates: CoordinatesSpec | None = None
    merged: int = 1
    views: None = None

    def place(self, sequences: Sequence[ImagePlaces], states: Sequence[State]) -> None:
        """See `Reader`."""
        if self.coordinates is None:
            return
        slots, found = [], []
        for sequence in sequences:
            images = [(at, grid[-2] // self.merged, grid[-1] // self.merged) for at, grid in sequence.images]
            slots.append(np.asarray(sequence.slots))
            found.append(coordinates(len(sequence.slots), images))
        where, *axes = upload(self.features.device, np.concatenate(slots), *np.concatenate(found, 1))
        cast(Coordinates, states[1]).write(where, torch.stack(axes))

    def places(self, num_rows: int) -> int:
        """See `Reader`."""
        return PLACES

    def __call__(self, images: Sequence[ImageInput], states: Sequence[State], seen: Sequence[SeenImages] = ()) -> None:
        """See `Reader`."""
        pool = cast(Features, states[-1]).pool
        for image, packed in self.features_of(images):
            (places,) = upload(pool.device, image.places)
            pool[places] = packed

    def features_of(self, images: Sequence[ImageInput]) -> Iterator[tuple[ImageInput, Tensor]]:
        """Each image with its features [kept, hidden], those of several made together."""
        for some in _groups(images, self.tiles, self.arranging is not None):
            found = [self.packing(*one) for one in self._projected([image.image for image in some])]
            for image, packed in zip(some, found, strict=True):
                assert len(packed) == image.image.kept, f"{len(packed)} features for {image.image.kept} places"
                yield image, packed

    def read(self, image: PreparedImage) -> Tensor:
        """The features [tokens, hidden] of one image, for who wants them by themselves."""
        ((features, _),) = self._projected([image])
        return self.packing(features, image)

    def _projected(self, images: Sequence[PreparedImage]) -> Iterator[tuple[Tensor, PreparedImage]]:
        """Each with the projected features of its tiles."""
        if self.arranging is not None:
            return self._packed(images, self.arranging)
        if self.patch_size is not None:
            return ((self._ragged(image, self.patch_size), image) for image in images)
        counts = [len(image.pixels) for image in images]
        projected = self.projector(self.tower(torch.cat([self._pixels(image) for image in images])))
        return zip(torch.split(projected, counts), images, strict=True)

    def _packed(self, images: Sequence[PreparedImage], arranging: Arranging) -> Iterator[tuple[Tensor, PreparedImage]]:
        """Of images with the same grid, each of which is a tile."""
        pixels = torch.stack([self._pixels(image) for image in images])
        features = self.projector(self.tower(pixels, arranging(*images[0].grid[-2:])))
        return zip(torch.split(features, 1), images, strict=True)

    def _ragged(self, image: PreparedImage, patch: int) -> Tensor:
        """Of each tile by itself, as many whole patches as there are in it."""
        sizes = zip(image.grid[::2], image.grid[1::2], strict=True)
        tiles = zip(self._pixels(image).unbind(), sizes, strict=False)
        whole = [tile[None, :, : height // patch * patch, : width // patch * patch] for tile, (height, width) in tiles]
        return torch.cat([self.projector(self.tower(tile.contiguous())) for tile in whole])

    def _pixels(self, image: PreparedImage) -> Tensor:
        flat = to_device(image.pixels.ravel(), torch.float32, self.features.device)
        return flat.view(image.pixels.shape).to(self.features.dtype)


def _groups(images: Sequence[ImageInput], most: int, by_grid: bool) -> Iterator[list[ImageInput]]:
    """Images whose tiles are alike, of up to so many tiles together; an image of more is alone. by_grid: that too."""
    group: list[ImageInput] = []
    tiles, kind = 0, None
    for image in images:
        count, *size = image.image.pixels.shape
        own = size, image.image.grid if by_grid else ()
        if group and (tiles + count > most or own != kind):
            yield group
            group, tiles = [], 0
        group.append(image)
        tiles, kind = tiles + count, own
    if group:
        yield group
