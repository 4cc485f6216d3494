"""LLaVA-NeXT: CLIP's tower, tiles, and a Llama or a Mistral."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers.image_processing_utils import select_best_resolution

from oracles.case import LLAMA, Case
from oracles.pictures import Pictures, random_pixels
from text_generation_server.images.types import PreparedImage

_SIDE = 12
_GRIDS = [[12, 24], [24, 12], [24, 24], [36, 12], [12, 36]]
_CLIP = {
    "model_type": "clip_vision_model", "hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 3,
    "num_attention_heads": 4, "image_size": _SIDE, "patch_size": 4,
}  # fmt: skip
_IMAGE = 100


def _draw(random: np.random.Generator, size: tuple[int, int]) -> PreparedImage:
    height, width = select_best_resolution(size, _GRIDS)
    grid = height // _SIDE, width // _SIDE
    pixels = random_pixels(random, 1 + grid[0] * grid[1], 3, _SIDE, _SIDE)
    return PreparedImage(pixels, size, grid, 0, pixels.tobytes()[:16])


def _given(images: Sequence[PreparedImage]) -> dict[str, Tensor]:
    most = max(len(image.pixels) for image in images)
    padded = [np.pad(image.pixels, ((0, most - len(image.pixels)), (0, 0), (0, 0), (0, 0))) for image in images]
    sizes = torch.tensor([image.original for image in images])
    return {"pixel_values": torch.from_numpy(np.stack(padded)), "image_sizes": sizes}


def _llava(name: str, notes: str, text: dict[str, object], **config: object) -> Case:
    parts = {
        "text_config": {**LLAMA, "vocab_size": 101, **text},
        "vision_config": _CLIP,
        "image_grid_pinpoints": _GRIDS,
    }
    given = {**parts, "image_token_index": _IMAGE, **config}
    return Case(
        name,
        "LLaVA-NeXT (1.6) with Llama or Mistral",
        "llava_next",
        given,
        notes,
        tolerance=3e-4,
        pictures=Pictures(_IMAGE, _draw, _given),
    )


CASES = (
    _llava("llava-next", "images of one to four tiles beside text alone", {"model_type": "llama"}),
    _llava(
        "llava-next-mistral",
        "a window, two feature layers, a projector without biases",
        {"model_type": "mistral", "sliding_window": 30, "head_dim": 10},
        vision_feature_layer=[-1, 1],
        multimodal_projector_bias=False,
    ),
)
