"""Runs a tower for images that are being admitted, and leaves their features in their places."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from text_generation_server.cache.features import PLACES, Features, FeaturesSpec
from text_generation_server.cache.states import State
from text_generation_server.device.copies import to_device, upload
from text_generation_server.images.types import PreparedImage
from text_generation_server.models.step import ImageInput, SeenImages
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

    tiles: of how many the tower computes at once. patch_size: of tiles of sizes of their own; None where all are alike.
    """

    tower: Tower
    projector: Callable[[Tensor], Tensor]
    packing: Packing
    features: FeaturesSpec
    sight: Sight
    tiles: int
    patch_size: int | None = None
    views: None = None

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
        for some in _groups(images, self.tiles):
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
        if self.patch_size is not None:
            return ((self._ragged(image, self.patch_size), image) for image in images)
        counts = [len(image.pixels) for image in images]
        projected = self.projector(self.tower(torch.cat([self._pixels(image) for image in images])))
        return zip(torch.split(projected, counts), images, strict=True)

    def _ragged(self, image: PreparedImage, patch: int) -> Tensor:
        """Of each tile by itself, as many whole patches as there are in it."""
        sizes = zip(image.grid[::2], image.grid[1::2], strict=True)
        tiles = zip(self._pixels(image).unbind(), sizes, strict=False)
        whole = [tile[None, :, : height // patch * patch, : width // patch * patch] for tile, (height, width) in tiles]
        return torch.cat([self.projector(self.tower(tile.contiguous())) for tile in whole])

    def _pixels(self, image: PreparedImage) -> Tensor:
        flat = to_device(image.pixels.ravel(), torch.float32, self.features.device)
        return flat.view(image.pixels.shape).to(self.features.dtype)


def _groups(images: Sequence[ImageInput], most: int) -> Iterator[list[ImageInput]]:
    """Images whose tiles are alike, of up to so many tiles together; an image of more is alone."""
    group: list[ImageInput] = []
    tiles = 0
    for image in images:
        shape = image.image.pixels.shape
        if group and (tiles + shape[0] > most or shape[1:] != group[0].image.pixels.shape[1:]):
            yield group
            group, tiles = [], 0
        group.append(image)
        tiles += shape[0]
    if group:
        yield group
