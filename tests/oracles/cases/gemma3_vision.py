"""Gemma 3 with images, PaliGemma: SigLIP's tower, and tokens that see what is behind them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from oracles.case import LLAMA, Case
from oracles.pictures import Pictures, random_pixels
from text_generation_server.images.types import PreparedImage

_IMAGE = 100
_SIGLIP = {
    "model_type": "siglip_vision_model", "hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 2,
    "num_attention_heads": 4, "image_size": 24, "patch_size": 4,
}  # fmt: skip
_TEXT = {
    **LLAMA, "model_type": "gemma3_text", "vocab_size": 101, "head_dim": 12, "num_hidden_layers": 3,
    "query_pre_attn_scalar": 12, "sliding_window": 6,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}  # fmt: skip


def _draw(random: np.random.Generator, size: tuple[int, int]) -> PreparedImage:
    pixels = random_pixels(random, 1, 3, 24, 24)
    return PreparedImage(pixels, size, (1, 1), 0, pixels.tobytes()[:16])


def _given(images: Sequence[PreparedImage]) -> dict[str, Tensor]:
    return {"pixel_values": torch.from_numpy(np.concatenate([image.pixels for image in images]))}


def _paligemma(name: str, notes: str, **text: object) -> Case:
    given = {"text_config": {**LLAMA, "vocab_size": 101, "head_dim": 12, **text}, "vision_config": _SIGLIP}
    return Case(
        name,
        "PaliGemma 1 and 2",
        "paligemma",
        {**given, "projection_dim": 32, "image_token_index": _IMAGE},
        notes,
        plain_norms=False,
        tolerance=3e-4,
        shares=False,
        pictures=Pictures(
            _IMAGE, _draw, _given, lambda ids, prompt: (torch.arange(ids.shape[1]) >= prompt).long()[None]
        ),
    )


CASES = (
    Case(
        "gemma3-images",
        "Gemma 3 with images (4B, 12B, 27B)",
        "gemma3",
        {"text_config": _TEXT, "vision_config": _SIGLIP, "mm_tokens_per_image": 9, "image_token_index": _IMAGE},
        "images longer than the window; a head that nothing reads",
        plain_norms=False,
        tolerance=3e-4,
        pictures=Pictures(_IMAGE, _draw, _given, lambda ids, _: (ids == _IMAGE).long()),
    ),
    _paligemma("paligemma", "prompts that see all of themselves, with and without images", model_type="gemma"),
    _paligemma(
        "paligemma2",
        "the same with windows shorter than prompts, in which answers alone are, and bounded scores",
        model_type="gemma2",
        sliding_window=9,
        query_pre_attn_scalar=12,
        attn_logit_softcapping=3.0,
    ),
)
