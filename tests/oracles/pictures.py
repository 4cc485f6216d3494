"""Images for the models of cases that take some: drawn at random, placed in prompts, and told to transformers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from text_generation_server.images.types import PlacedImage, PreparedImage

Drawn = Callable[[np.random.Generator, tuple[int, int]], PreparedImage]

ROWS: tuple[tuple[tuple[int, int], ...], ...] = ((), ((20, 31),), ((9, 8),), ((40, 13), (5, 60)))
"""Height and width of the images of each prompt: none, one or two."""


@dataclass(frozen=True)
class Pictures:
    """How a case's model is shown images.

    token: what stands where features go. draw: an image of this height and width with random pixels; how many positions
    it fills is found out. given: what transformers' model takes for some images. types: makes those of tokens, from
    their ids and the prompt's length, where transformers' model has to be told what sees what is behind it. marks: the
    name under which it has to be told which tokens are an image's, empty where it finds them by itself.
    """

    token: int
    draw: Drawn
    given: Callable[[Sequence[PreparedImage]], dict[str, Tensor]]
    types: Callable[[Tensor, int], Tensor] | None = None
    marks: str = ""

    def features(self, model: Any, images: Sequence[PreparedImage]) -> list[Tensor]:
        """What transformers makes of each image, [kept, hidden]; what is added behind layers first, side by side."""
        found = model.get_image_features(**self.given(images))
        parts = zip(*(found.get("deepstack_features") or []), found.pooler_output, strict=True)
        return [torch.cat([part.reshape(-1, part.shape[-1]) for part in of_image], -1) for of_image in parts]

    def counted(self, image: PreparedImage, features: int) -> PreparedImage:
        """The image, and of how many features it is."""
        return replace(image, tokens=features)

    def logits(self, images: Sequence[PreparedImage], prompt: int, model: Any, token_ids: Tensor) -> Tensor:
        """What a model answers to [1, T] tokens with images: [T, vocab]. prompt: how many are no answer."""
        given = self.given(images) if images else {}
        if self.types is not None:
            given["token_type_ids"] = self.types(token_ids, prompt)
        if self.marks:
            given[self.marks] = (token_ids == self.token).int()
        logits: Tensor = model(token_ids, use_cache=False, **given).logits[0]
        return logits


@torch.inference_mode()
def placed(model: Any, pictures: Pictures, prompt: Sequence[int], row: int) -> tuple[list[int], list[PlacedImage]]:
    """A prompt with the row's images, the first from position 2 on if there is one, each with a token behind it."""
    random = np.random.default_rng(row)
    tokens, images = list(prompt[:2]), []
    for size in ROWS[row % len(ROWS)]:
        image = pictures.draw(random, size)
        image = pictures.counted(image, len(pictures.features(model, [image])[0]))
        images.append(PlacedImage(image, range(len(tokens), len(tokens) + image.tokens)))
        tokens += [pictures.token] * image.tokens + [3 + row]
    return tokens + list(prompt[2:]), images


def random_pixels(random: np.random.Generator, *shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """As processors leave them: around 0."""
    return random.normal(size=shape).astype(np.float32)
