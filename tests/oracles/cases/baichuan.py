"""Baichuan: transformers' Llama answers for it, with linear biases in its mask and a normalised head where needed."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from oracles.case import LLAMA, Case, Tensors

_LLAMA = {**LLAMA, "hidden_size": 48, "num_key_value_heads": 12, "num_attention_heads": 12}
_7B = {
    "model_type": "baichuan",
    "hidden_act": "silu",
    "hidden_size": 48,
    "intermediate_size": 45,
    "max_position_embeddings": 128,
    "num_attention_heads": 12,
    "num_hidden_layers": 2,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "vocab_size": 97,
}
_13B = {key: value for key, value in _7B.items() if key != "max_position_embeddings"} | {"model_max_length": 128}
_SECOND = {"z_loss_weight": 0}
_SLOPES = [2.0 ** -(i + 1) for i in range(8)] + [2.0 ** -(i + 0.5) for i in range(4)]
"""Of 12 heads: those of 8, then every other one of those of 16 (arXiv 2108.12409)."""


def _packed(tensors: Tensors) -> Tensors:
    """One tensor for queries, keys and values."""
    changed = dict(tensors)
    for name in tensors:
        if ".q_proj." in name:
            parts = [changed.pop(name.replace("q_proj", part)) for part in ("q_proj", "k_proj", "v_proj")]
            changed[name.replace("q_proj", "W_pack")] = torch.cat(parts)
    return changed


def _rotated(model: Any, token_ids: Tensor) -> Tensor:
    hidden: Tensor = model.model(token_ids, use_cache=False).last_hidden_state[0]
    return hidden


def _biased(model: Any, token_ids: Tensor) -> Tensor:
    """With all positions 0 nothing is rotated; linear biases and causality are in the mask."""
    places = torch.arange(token_ids.shape[1])
    distance = (places[:, None] - places).float()
    mask = -torch.tensor(_SLOPES)[:, None, None] * distance
    mask = mask.masked_fill(distance < 0, torch.finfo(torch.float32).min)[None]
    hidden: Tensor = model.model(
        token_ids, attention_mask=mask, position_ids=torch.zeros_like(token_ids), use_cache=False
    ).last_hidden_state[0]
    return hidden


def _logits_13b(model: Any, token_ids: Tensor) -> Tensor:
    return F.linear(_biased(model, token_ids), model.lm_head.weight)


def _logits_2_7b(model: Any, token_ids: Tensor) -> Tensor:
    return F.linear(_rotated(model, token_ids), F.normalize(model.lm_head.weight))


def _logits_2_13b(model: Any, token_ids: Tensor) -> Tensor:
    return F.linear(_biased(model, token_ids), F.normalize(model.lm_head.weight))


def _baichuan(name: str, row: str, notes: str, written: dict[str, object], **more: Any) -> Case:
    return Case(name, row, "llama", _LLAMA, notes, checkpoint=_packed, written=written, **more)


CASES = (
    _baichuan("baichuan-7b", "Baichuan 7B", "queries, keys and values in one tensor", _7B),
    _baichuan("baichuan-13b", "Baichuan 13B", "linear biases, 12 heads", _13B, forward=_logits_13b),
    _baichuan("baichuan2-7b", "Baichuan 2 7B", "normalised head", {**_7B, **_SECOND}, forward=_logits_2_7b),
    _baichuan(
        "baichuan2-13b",
        "Baichuan 2 13B",
        "linear biases and a normalised head",
        {**_13B, **_SECOND},
        forward=_logits_2_13b,
    ),
)
