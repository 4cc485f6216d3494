"""The images in one sequence's prompt, and the places of their features for as long as it needs them. Host only."""

from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np

from text_generation_server.cache.places import FeaturePlaces, HeldFeatures
from text_generation_server.engine.types import Request
from text_generation_server.errors import InvalidRequest
from text_generation_server.images.types import PlacedImage
from text_generation_server.images.views import ENDLESS, View, last_seen, views_of
from text_generation_server.models.step import FEATURE, ImageInput, SeenImages
from text_generation_server.specs.crossing import MOST_SEEN, Views


class ShownImages:
    """inputs: the prompt as steps compute it: its tokens, and places of features where images stand.

    spans: first position and end of each. rule: what tokens see where layers attend to images; then nothing stands in
    place of tokens.
    """

    def __init__(self, request: Request, held: list[tuple[PlacedImage, HeldFeatures]], rule: Views | None) -> None:
        self.inputs, self.spans = request.prompt_ids, []
        self._views: list[View] = []
        if rule is None:
            self.inputs = _with_places(request.prompt_ids, held)
            self.spans = [(placed.positions[0], placed.positions[-1] + 1) for placed, _ in held]
            self._held = [(placed, features, placed.positions[-1]) for placed, features in held]
            return
        shown = [placed for placed, _ in held]
        self._views = views_of(request.prompt_ids[: len(request.prompt_ids) - request.generated], shown, rule)
        self._places = np.concatenate([features.places for _, features in held])
        lasts = last_seen(shown, self._views)
        self._held = [(placed, features, last) for (placed, features), last in zip(held, lasts, strict=True)]

    @classmethod
    def hold(cls, request: Request, places: FeaturePlaces, rule: Views | None = None) -> Self | None:
        """The request's, None if it has none.

        Raises:
            InvalidRequest: they are not where its prompt has room for them, or more than can be kept.
            OutOfBlocks: others have the places.
        """
        if not request.images:
            return None
        _check(request, places.num_places, rule)
        held: list[tuple[PlacedImage, HeldFeatures]] = []
        try:
            for placed in request.images:
                held.append((placed, places.hold(placed.image.digest, placed.image.kept)))
        except Exception:
            for _, features in held:
                features.let_go()
            raise
        return cls(request, held, rule)

    def unread(self) -> Iterator[tuple[HeldFeatures, ImageInput]]:
        """What a tower has to read before the first step."""
        for placed, features, _ in self._held:
            if not features.ready:
                yield features, ImageInput(placed.image, features.places)

    def seen_by(self, row: int) -> list[SeenImages]:
        """What tokens of this row see where layers attend to images, if they do."""
        return [SeenImages(row, self._places, self._views)] if self._views else []

    def let_go(self, computed: int) -> None:
        """Let go of those that no position behind the first `computed` needs."""
        needed = []
        for placed, features, last in self._held:
            if last < computed:
                features.let_go()
            else:
                needed.append((placed, features, last))
        self._held = needed

    def release(self) -> None:
        """Let go of all."""
        self.let_go(ENDLESS + 1)


def _with_places(prompt_ids: tuple[int, ...], held: Sequence[tuple[PlacedImage, HeldFeatures]]) -> tuple[int, ...]:
    ids = list(prompt_ids)
    for placed, features in held:
        for position, place in zip(placed.positions, features.places.tolist(), strict=True):
            ids[position] = FEATURE - place
    return tuple(ids)


def _check(request: Request, most: int, rule: Views | None) -> None:
    features = sum(placed.image.kept for placed in request.images)
    if not most:
        raise InvalidRequest(f"request {request.id}: the prompt has an image, and this model takes text only")
    if features > most:
        raise InvalidRequest(f"request {request.id}: its images have {features} features, expected at most {most}")
    if rule is not None and len(request.images) > MOST_SEEN:
        raise InvalidRequest(f"request {request.id}: it has {len(request.images)} images, expected at most {MOST_SEEN}")
    for placed in request.images:
        image, positions = placed.image, placed.positions
        inside = positions and min(positions) >= 0 and max(positions) < len(request.prompt_ids) - request.generated
        if not inside or len(positions) != image.tokens:
            raise InvalidRequest(
                f"request {request.id}: an image of {image.tokens} positions is to fill {len(positions)}, not all of "
                f"which are in the prompt of {len(request.prompt_ids)} tokens"
            )
