"""Llama 3.2 Vision: tiles that see each other, gated layers that attend to them.

transformers 5.24 is put right in two places, where Meta's own code, and what the models were trained with, differ: a
token before all images gets nothing from attention to them, and features are inputs of the layers that are named.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig
from transformers.models.mllama.processing_mllama import (
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)

from oracles.case import LLAMA, VOCAB_SIZE, Case
from oracles.pictures import Pictures, random_pixels
from text_generation_server.images.types import PreparedImage

_MOST, _SIDE = 4, 8
_SHAPES = [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]]
_ROWS = 8
"""Of the table of embeddings, behind the vocabulary; the first of them is the image's."""


@dataclass(frozen=True)
class Seen(Pictures):
    """Of a model whose layers attend to images."""

    def features(self, model: Any, images: Sequence[PreparedImage]) -> list[Tensor]:
        """Of tiles that there are, one after the other."""
        states = model.model.multi_modal_projector(model.model.vision_model(**given(images)).last_hidden_state)[0]
        return [found[: len(image.pixels)].flatten(0, 1) for found, image in zip(states, images, strict=True)]

    def counted(self, image: PreparedImage, features: int) -> PreparedImage:
        """At one position, however many features there are."""
        return replace(image, tokens=1, features=features)

    def logits(self, images: Sequence[PreparedImage], prompt: int, model: Any, token_ids: Tensor) -> Tensor:
        """With −∞ for tokens that have no row of the head."""
        shown = given(images) if images else {}
        hooks = []
        if images:
            told = get_cross_attention_token_mask(token_ids[0, :prompt].tolist(), self.token)
            # What a prompt's last token sees, answers see too.
            seen = [[start, -1 if end == prompt else end] for start, end in told]
            counts = [[len(image.pixels) for image in images]]
            mask = convert_sparse_cross_attention_mask_to_dense([seen], counts, _MOST, token_ids.shape[1])
            shown["cross_attention_mask"] = torch.from_numpy(mask)
            blind = torch.from_numpy(mask.sum((2, 3)) == 0)[..., None]
            hooks = [_blinded(layer.cross_attn, blind) for layer in _crossing(model)]
        logits: Tensor = model(token_ids, use_cache=False, **shown).logits[0]
        for hook in hooks:
            hook.remove()
        return torch.nn.functional.pad(logits, (0, _ROWS), value=-torch.inf)


def _crossing(model: Any) -> list[Any]:
    text = model.model.language_model
    return [text.layers[number] for number in text.cross_attention_layers]


def _blinded(attention: Any, blind: Tensor) -> Any:
    return attention.register_forward_hook(lambda _module, _args, out: (out[0].masked_fill(blind, 0.0), *out[1:]))


def draw(random: np.random.Generator, size: tuple[int, int]) -> PreparedImage:
    rows, columns = (1, 1) if max(size) < 10 else (1, 3) if size[0] > size[1] else (2, 2)
    pixels = random_pixels(random, rows * columns, 3, _SIDE, _SIDE)
    return PreparedImage(pixels, size, (rows, columns), 0, pixels.tobytes()[:16])


def given(images: Sequence[PreparedImage]) -> dict[str, Tensor]:
    sizes = 1, len(images), _MOST
    pixels, present = np.zeros((*sizes, *images[0].pixels.shape[1:]), np.float32), np.zeros(sizes)
    for number, image in enumerate(images):
        pixels[0, number, : len(image.pixels)] = image.pixels
        present[0, number, : len(image.pixels)] = 1
    ids = torch.tensor([[_SHAPES.index(list(image.grid)) + 1 for image in images]])
    return {
        "pixel_values": torch.from_numpy(pixels),
        "aspect_ratio_ids": ids,
        "aspect_ratio_mask": torch.from_numpy(present).long(),
    }


def _config(taken: Sequence[int]) -> dict[str, Any]:
    return {
        "text_config": {
            **LLAMA, "num_hidden_layers": 4, "cross_attention_layers": [1, 3], "intermediate_size": 45,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
        "vision_config": {
            "hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 3, "num_global_layers": 2,
            "attention_heads": 4, "image_size": _SIDE, "patch_size": 4, "vision_output_dim": 72,
            "intermediate_layers_indices": [*taken], "norm_eps": 1e-3,
        },
        "image_token_index": VOCAB_SIZE,
    }  # fmt: skip


CASES = (
    Case(
        "mllama",
        "Llama 3.2 Vision",
        "mllama",
        _config([0, 1]),
        "tiles of several shapes, tokens before all images, a last layer that attends to images",
        written=AutoConfig.for_model("mllama", **_config([1, 2])).to_dict(),
        tolerance=4e-4,
        pictures=Seen(VOCAB_SIZE, draw, given),
    ),
)
