"""Reads images for layers that attend to them: leaves keys and values of their features in their places."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from torch import Tensor

from text_generation_server.cache.image_keys import ImageKeysSpec, RowViews
from text_generation_server.cache.paged import PagedCache
from text_generation_server.cache.states import State
from text_generation_server.device.copies import upload
from text_generation_server.images.types import PreparedImage
from text_generation_server.layers.linear import ColumnParallelLinear
from text_generation_server.layers.qk_norm import QkNorm
from text_generation_server.models.step import ImageInput, ImagePlaces, SeenImages
from text_generation_server.models.vision.tower import TOKENS
from text_generation_server.specs.crossing import Views
from text_generation_server.specs.vision import Sight


class FeatureReader(Protocol):
    """Makes features of images."""

    def features_of(self, images: Sequence[ImageInput]) -> Iterator[tuple[ImageInput, Tensor]]:
        """Each image with its features [kept, width]."""

    def read(self, image: PreparedImage) -> Tensor:
        """Those of one image."""


@dataclass(frozen=True, slots=True)
class KeysValues:
    """Of one layer: a linear to keys, then values, and a norm of keys."""

    linear: ColumnParallelLinear
    norm: QkNorm | None

    def __call__(self, features: Tensor, kv_heads: int) -> Tensor:
        """[n, width] to [n, 2 · kv_heads, head_dim]."""
        made = self.linear(features, TOKENS).view(len(features), 2 * kv_heads, -1)
        if self.norm is not None:
            self.norm(made[:, :kv_heads])
        return made


@dataclass(frozen=True, slots=True)
class CrossReader:
    """Satisfies `Reader`. images: makes features. layers: those that attend to images, in order. kept: of features."""

    images: FeatureReader
    layers: Sequence[KeysValues]
    kept: ImageKeysSpec
    views: Views
    sight: Sight = Sight.CAUSAL

    def places(self, num_rows: int) -> int:
        """See `Reader`."""
        return num_rows * self.kept.per_image

    def place(self, sequences: Sequence[ImagePlaces], states: Sequence[State]) -> None:
        """See `Reader`: nothing stands at positions."""

    def __call__(self, images: Sequence[ImageInput], states: Sequence[State], seen: Sequence[SeenImages] = ()) -> None:
        """See `Reader`."""
        cache, views = cast(PagedCache, states[1]), cast(RowViews, states[2])
        for image, features in self.images.features_of(images):
            (places,) = upload(features.device, image.places)
            for layer, keys_values in enumerate(self.layers):
                cache.write(layer, places, keys_values(features, self.kept.kv.kv_heads))
        for one in seen:
            views.hold(one.row, one.places, one.views)

    def read(self, image: PreparedImage) -> Tensor:
        """The features [n, width] of one image, for who wants them by themselves."""
        return self.images.read(image)
