"""Idefics (1): gated layers before a Llama's own that attend to the last image before a token."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oracles.case import SIZES, VOCAB_SIZE, Case
from oracles.pictures import Pictures, random_pixels
from text_generation_server.images.types import PreparedImage

_SIDE, _MORE = 12, 3
_IMAGE = VOCAB_SIZE + _MORE - 1
"""The last of the tokens whose rows are tensors of their own."""


@dataclass(frozen=True)
class LastSeen(Pictures):
    """Of a model whose layers attend to the last image before a token."""

    def features(self, model: Any, images: Sequence[PreparedImage]) -> list[Tensor]:
        """The tower's, or what a resampler makes of them."""
        states = model.model.vision_model(pixel_values=given(images)["pixel_values"][0]).last_hidden_state
        return [*(model.model.perceiver_resampler(states) if model.config.use_resampler else states)]

    def counted(self, image: PreparedImage, features: int) -> PreparedImage:
        """At one position, however many features there are."""
        return replace(image, tokens=1, features=features)

    def logits(self, images: Sequence[PreparedImage], prompt: int, model: Any, token_ids: Tensor) -> Tensor:
        """transformers wants an image even where no token sees any."""
        shown = given(images or [_nothing(model.config.vision_config.image_size)])
        stands = (token_ids == self.token) & (torch.arange(token_ids.shape[1]) < prompt)
        last = stands.cumsum(1)
        mask = torch.nn.functional.one_hot(last, max(len(images), 1) + 1)[..., 1:]
        logits: Tensor = model(token_ids, use_cache=False, image_attention_mask=mask, **shown).logits[0]
        return logits


def _nothing(side: int) -> PreparedImage:
    return PreparedImage(np.zeros((1, 3, side, side), np.float32), (1, 1), (1, 1), 1, b"")


def draw(random: np.random.Generator, size: tuple[int, int]) -> PreparedImage:
    pixels = random_pixels(random, 1, 3, _SIDE, _SIDE)
    return PreparedImage(pixels, size, (1, 1), 0, pixels.tobytes()[:16])


def given(images: Sequence[PreparedImage]) -> dict[str, Tensor]:
    return {"pixel_values": torch.from_numpy(np.stack([image.pixels[0] for image in images]))[None]}


def _idefics(name: str, notes: str, **config: object) -> Case:
    values = {
        **SIZES, "vocab_size": VOCAB_SIZE, "additional_vocab_size": _MORE, "intermediate_size": 45,
        "num_hidden_layers": 4, "pad_token_id": 0, "alpha_initializer": "ones",
        "vision_config": {
            "embed_dim": 24, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4,
            "image_size": _SIDE, "patch_size": 4,
        },
        **config,
    }  # fmt: skip
    seen = LastSeen(_IMAGE, draw, given)
    return Case(name, "Idefics", "idefics", values, notes, tolerance=8e-4, pictures=seen)


CASES = (
    _idefics(
        "idefics",
        "a resampler, norms of queries and keys, layers that attend to images before every second one",
        cross_layer_interval=2,
        qk_layer_norms=True,
        use_resampler=True,
        perceiver_config={
            "use_resampler": True, "resampler_n_latents": 5, "resampler_depth": 2, "resampler_n_heads": 4,
            "resampler_head_dim": 6, "qk_layer_norms_perceiver": True,
        },
    ),
    _idefics("idefics-patches", "all of the tower's tokens, before every layer, gates number by number",
             alpha_type="vector"),
)  # fmt: skip
