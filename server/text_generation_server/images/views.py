"""Which images the tokens of a prompt see, where a model's layers attend to images. Host only; knows no model."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from text_generation_server.images.types import PlacedImage
from text_generation_server.specs.crossing import Views

ENDLESS = 1 << 62
"""A position behind the last of any sequence."""


class View(NamedTuple):
    """From position `begin` on, up to the next view, tokens see `size` features, those from number `first` on, of all
    that the prompt's images have, in their order.
    """

    begin: int
    first: int
    size: int


def views_of(ids: Sequence[int], images: Sequence[PlacedImage], rule: Views) -> list[View]:
    """The views of a prompt, in order: none before the first image. images: in their order, each at one position."""
    views: list[View] = []
    first = past = 0
    starts = [image.positions[0] for image in images]
    for image, before, start, following in zip(images, [-2, *starts], starts, [*starts[1:], len(ids)], strict=False):
        if not rule.beside or start != before + 1:
            first = past
        past += image.image.features
        views.append(View(start, first, past - first))
        if rule.end is not None and rule.end in ids[start:following]:
            views.append(View(ids.index(rule.end, start) + 1, 0, 0))
    # A token that ends something right before an image ends nothing.
    return [view for view, after in pairwise([*views, View(-1, 0, 0)]) if view.begin != after.begin]


def last_seen(images: Sequence[PlacedImage], views: Sequence[View]) -> list[int]:
    """The last position from which each image is seen."""
    lasts, past = [], 0
    for image in images:
        past += image.image.features
        seen = [view.first < past <= view.first + view.size for view in views]
        last = len(seen) - 1 - seen[::-1].index(True)
        lasts.append(views[last + 1].begin - 1 if last + 1 < len(views) else ENDLESS)
    return lasts
