"""A mock model that reads images: where one stands, its history has numbers that follow from the image's content."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from mocks.mock_model import UNSPOKEN, MockModel, MockPlan
from text_generation_server.cache.features import Features, FeaturesSpec
from text_generation_server.cache.layout import Block, RowLayout
from text_generation_server.images.types import PlacedImage, PreparedImage
from text_generation_server.models.step import FEATURE, ImageInput, ImagePlaces, SeenImages, StepInput
from text_generation_server.specs.vision import Sight


def picture(content: int, tokens: int) -> PreparedImage:
    """An image whose features are this number, less one for each position behind the first."""
    pixels = np.full((1, 1, 1, 1), content, dtype=np.float32)
    return PreparedImage(pixels, (1, 1), (1, 1), tokens, content.to_bytes(16, "little"))


def seen(prompt: Sequence[int], images: Sequence[PlacedImage]) -> list[int]:
    """What the model's history has of a prompt with images."""
    history = list(prompt)
    for placed in images:
        for offset, position in enumerate(placed.positions):
            history[position] = int(placed.image.pixels[0, 0, 0, 0]) - offset
    return history


@dataclass
class MockReader:
    """contents: of each image that was read, in order. placed: of each sequence. fail_on: the content of an image."""

    fail_on: int | None
    sight: Sight = Sight.CAUSAL
    contents: list[int] = field(default_factory=list)
    placed: list[ImagePlaces] = field(default_factory=list)
    views: None = None

    def place(self, sequences: Sequence[ImagePlaces], states: Sequence[Features]) -> None:
        self.placed += sequences

    def __call__(
        self, images: Sequence[ImageInput], states: Sequence[Features], seen: Sequence[SeenImages] = ()
    ) -> None:
        for one in images:
            content = int(one.image.pixels[0, 0, 0, 0])
            if content == self.fail_on:
                raise RuntimeError("the mock device failed")
            self.contents.append(content)
            features = content - torch.arange(one.image.tokens, dtype=torch.float32)
            states[-1].pool[torch.from_numpy(one.places)] = features[:, None]


class PicturedMockModel(MockModel):
    """fail_on: a token, or an image's content. blocks: of each step."""

    def __init__(self, fail_on: int | None = UNSPOKEN) -> None:
        super().__init__(fail_on=fail_on)
        self.states = (*self.states, FeaturesSpec(1, torch.float32, self.device))
        self.reader = MockReader(fail_on)
        self.blocks: list[list[Block]] = []

    def prepare(self, layout: RowLayout) -> MockPlan:
        self.blocks.append(list(layout.blocks))
        return super().prepare(layout)

    def hidden(self, step: StepInput) -> torch.Tensor:
        cache, features = step.states
        assert step.pictured or step.token_ids.min() >= 0
        places = FEATURE - step.token_ids
        found = features.pool[places.clamp(min=0), 0].nan_to_num().long()
        ids = torch.where(places >= 0, found, step.token_ids)
        return super().hidden(replace(step, token_ids=ids, states=(cache,)))
