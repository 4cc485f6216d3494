"""The images in one sequence's prompt, and the places of their features for as long as it needs them. Host only."""

from collections.abc import Iterator
from typing import Self

from text_generation_server.cache.places import FeaturePlaces, HeldFeatures
from text_generation_server.engine.types import Request
from text_generation_server.errors import InvalidRequest
from text_generation_server.images.types import PlacedImage
from text_generation_server.models.step import FEATURE, ImageInput


class ShownImages:
    """inputs: the prompt as steps compute it: its tokens, and places of features where images stand.

    spans: first position and end of each.
    """

    def __init__(self, request: Request, held: list[tuple[PlacedImage, HeldFeatures]]) -> None:
        ids = list(request.prompt_ids)
        for placed, features in held:
            for position, place in zip(placed.positions, features.places.tolist(), strict=True):
                ids[position] = FEATURE - place
        self.inputs = tuple(ids)
        self.spans = [(placed.positions[0], placed.positions[-1] + 1) for placed, _ in held]
        self._held = held

    @classmethod
    def hold(cls, request: Request, places: FeaturePlaces) -> Self | None:
        """The request's, None if it has none.

        Raises:
            InvalidRequest: they are not where its prompt has room for them, or more than can be kept.
            OutOfBlocks: others have the places.
        """
        if not request.images:
            return None
        _check(request, places.num_places)
        held: list[tuple[PlacedImage, HeldFeatures]] = []
        try:
            for placed in request.images:
                held.append((placed, places.hold(placed.image.digest, placed.image.tokens)))
        except Exception:
            for _, features in held:
                features.let_go()
            raise
        return cls(request, held)

    def unread(self) -> Iterator[tuple[HeldFeatures, ImageInput]]:
        """What a tower has to read before the first step."""
        for placed, features in self._held:
            if not features.ready:
                yield features, ImageInput(placed.image, features.places)

    def let_go(self, computed: int) -> None:
        """Let go of those all of whose positions are among the first `computed`."""
        needed = []
        for placed, features in self._held:
            if placed.positions[-1] < computed:
                features.let_go()
            else:
                needed.append((placed, features))
        self._held = needed


def _check(request: Request, most: int) -> None:
    tokens = sum(placed.image.tokens for placed in request.images)
    if not most:
        raise InvalidRequest(f"request {request.id}: the prompt has an image, and this model takes text only")
    if tokens > most:
        raise InvalidRequest(f"request {request.id}: its images fill {tokens} positions, expected at most {most}")
    for placed in request.images:
        image, positions = placed.image, placed.positions
        inside = positions and min(positions) >= 0 and max(positions) < len(request.prompt_ids) - request.generated
        if not inside or len(positions) != image.tokens:
            raise InvalidRequest(
                f"request {request.id}: an image of {image.tokens} positions is to fill {len(positions)}, not all of "
                f"which are in the prompt of {len(request.prompt_ids)} tokens"
            )
