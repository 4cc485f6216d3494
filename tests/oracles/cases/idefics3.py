"""Idefics2, Idefics3 and SmolVLM: tiles with positions by fraction, squares of patches side by side."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from oracles.case import LLAMA, Case
from oracles.pictures import Pictures, random_pixels
from text_generation_server.images.types import PreparedImage

_IMAGE = 100
_TOWER = {
    "hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4, "patch_size": 4,
}  # fmt: skip


def _draw(random: np.random.Generator, size: tuple[int, int]) -> PreparedImage:
    grid = (0, 0) if max(size) < 10 else (1, 2)
    pixels = random_pixels(random, grid[0] * grid[1] + 1, 3, 24, 24)
    return PreparedImage(pixels, size, grid, 0, pixels.tobytes()[:16])


def _given(images: Sequence[PreparedImage]) -> dict[str, Tensor]:
    most = max(len(image.pixels) for image in images)
    padded = [np.pad(image.pixels, ((0, most - len(image.pixels)), (0, 0), (0, 0), (0, 0))) for image in images]
    return {"pixel_values": torch.from_numpy(np.stack(padded))}


def _draw_ragged(random: np.random.Generator, size: tuple[int, int]) -> PreparedImage:
    """Two tiles of sizes of their own, in which whole patches are not all there is; or one."""
    sizes = [(14, 27), (24, 13)][: 1 if max(size) < 10 else 2]
    pixels = np.zeros((len(sizes), 3, 24, 27), np.float32)
    for tile, (height, width) in zip(pixels, sizes, strict=True):
        tile[:, :height, :width] = random_pixels(random, 3, height, width)
    grid = tuple(side for of_tile in sizes for side in of_tile)
    return PreparedImage(pixels, size, grid, 0, pixels.tobytes()[:16])


def _given_ragged(images: Sequence[PreparedImage]) -> dict[str, Tensor]:
    mask = torch.zeros(len(images), max(len(image.pixels) for image in images), 24, 27, dtype=torch.bool)
    for of_image, image in zip(mask, images, strict=True):
        for tile, height, width in zip(of_image, image.grid[::2], image.grid[1::2], strict=False):
            tile[:height, :width] = True
    return {**_given(images), "pixel_attention_mask": mask}


def _idefics(name: str, model_type: str, notes: str, image_size: int, **config: object) -> Case:
    parts = {
        "text_config": {**LLAMA, "model_type": "llama", "vocab_size": 101, "head_dim": 10},
        "image_token_id": _IMAGE,
    }
    given = {**parts, "vision_config": {**_TOWER, "image_size": image_size}, **config}
    row = "Idefics3, SmolVLM"
    return Case(name, row, model_type, given, notes, tolerance=3e-4, pictures=Pictures(_IMAGE, _draw, _given))


IDEFICS2 = {
    "text_config": {**LLAMA, "model_type": "mistral", "vocab_size": 101, "sliding_window": None},
    "vision_config": {**_TOWER, "image_size": 24},
    "perceiver_config": {
        "hidden_size": 32, "resampler_n_latents": 5, "resampler_depth": 2, "resampler_n_heads": 4,
        "resampler_head_dim": 6, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
    },
    "image_token_id": _IMAGE,
}  # fmt: skip

CASES = (
    Case(
        "idefics2",
        "Idefics2",
        "idefics2",
        IDEFICS2,
        "tiles of sizes of their own, and parts of patches; latents",
        tolerance=6e-4,
        pictures=Pictures(_IMAGE, _draw_ragged, _given_ragged),
    ),
    _idefics("idefics3", "idefics3", "squares of two by two patches", 24, scale_factor=2),
    _idefics("smolvlm", "smolvlm", "squares of three, tiles that are not as large as the table of positions", 40,
             scale_factor=3, tie_word_embeddings=True),
)  # fmt: skip
