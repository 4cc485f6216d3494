"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: images of any size, whose positions have rows and columns."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oracles.case import LLAMA, Case, Tensors
from oracles.pictures import Pictures, random_pixels
from text_generation_server.images.types import PreparedImage

_IMAGE, _PATCH, _SECTIONS = 100, 4, [1, 2, 1]
_TOWER = {"depth": 2, "num_heads": 4, "patch_size": _PATCH, "spatial_merge_size": 2, "temporal_patch_size": 2}
_TEXT = {
    **LLAMA, "vocab_size": 101,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": _SECTIONS},
}  # fmt: skip


def _draw(random: np.random.Generator, size: tuple[int, int]) -> PreparedImage:
    rows, columns = (2 * max(1, side // 6) for side in size)
    pixels = random_pixels(random, rows * columns, 3 * _PATCH * _PATCH)
    return PreparedImage(pixels, size, (1, rows, columns), 0, pixels.tobytes()[:16])


def _given(images: Sequence[PreparedImage]) -> dict[str, Tensor]:
    """Each patch twice, as frames of a film that stands still."""
    patches = torch.cat([torch.from_numpy(image.pixels) for image in images]).view(-1, 3, 1, _PATCH * _PATCH)
    grids = torch.tensor([image.grid for image in images])
    return {"pixel_values": patches.expand(-1, -1, 2, -1).flatten(1), "image_grid_thw": grids}


def _as_in_memory(tensors: Tensors) -> Tensors:
    """Names as training programs save them that do not save by transformers."""
    prefixes = {"visual.": "model.visual.", "model.": "model.language_model."}
    return {
        next((new + name.removeprefix(old) for old, new in prefixes.items() if name.startswith(old)), name): tensor
        for name, tensor in tensors.items()
    }


def _some_swapped(tensors: Tensors) -> Tensors:
    """Experts of one layer as the models' makers saved them; of the other as transformers saves them."""
    return {name: tensor.transpose(1, 2) if ".0.mlp.experts." in name else tensor for name, tensor in tensors.items()}


def _published(tower: dict[str, object]) -> dict[str, object]:
    """config.json as the models' makers wrote it."""
    text = {key: value for key, value in _TEXT.items() if key != "rope_parameters"}
    rotation = {"rope_theta": 10000.0, "rope_scaling": {"type": "mrope", "mrope_section": _SECTIONS}}
    vision = {**_TOWER, **tower, "in_chans": 3, "spatial_patch_size": _PATCH}
    return {**text, **rotation, "model_type": "qwen2_vl", "rms_norm_eps": 1e-5, "vision_config": vision}


def _qwen(model_type: str, row: str, notes: str, tower: dict[str, object], **of_case: Any) -> Case:
    given = {
        "text_config": {**_TEXT, **of_case.pop("text", {})},
        "vision_config": {**_TOWER, **tower},
        "image_token_id": _IMAGE,
        "video_token_id": 99,
        "vision_start_token_id": 98,
        **of_case.pop("config", {}),
    }
    pictures = Pictures(_IMAGE, _draw, _given, marks="mm_token_type_ids")
    return Case(model_type, row, model_type, given, notes, tolerance=3e-4, pictures=pictures, **of_case)


_STACKED = {
    "hidden_size": 48, "out_hidden_size": 32, "intermediate_size": 37, "num_position_embeddings": 25,
    "deepstack_visual_indexes": [0],
}  # fmt: skip
_SMALL = {"embed_dim": 48, "hidden_size": 32, "mlp_ratio": 2}

CASES = (
    _qwen("qwen2_vl", "Qwen2-VL", "rotations by time, row and column; images of any size; a config without parts",
          _SMALL, written=_published(_SMALL)),
    _qwen("qwen2_5_vl", "Qwen2.5-VL",
          "windows of patches, and what is left of them at the ends; a tied head; names as in memory",
          {"hidden_size": 48, "out_hidden_size": 32, "intermediate_size": 37, "window_size": 16,
           "fullatt_block_indexes": [1]},
          config={"tie_word_embeddings": True}, checkpoint=_as_in_memory),
    _qwen("qwen3_vl", "Qwen3-VL",
          "features of two layers; learned positions, stretched; rotations by time, row and column in turn",
          _STACKED, text={"head_dim": 10, "rope_parameters": {**_TEXT["rope_parameters"], "mrope_section": [2, 1, 2]}}),
    _qwen("qwen3_vl_moe", "Qwen3-VL", "experts in stacked tensors, with inputs first, or outputs", _STACKED,
          text={"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 19, "head_dim": 8},
          config={"experts_implementation": "eager"}, checkpoint=_some_swapped),
)  # fmt: skip
