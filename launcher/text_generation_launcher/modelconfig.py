"""What the launcher needs of a model's config.json. Does not judge whether the model can be served."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FILE = "config.json"
_POSITIONS = ("max_position_embeddings", "max_seq_len", "n_positions")
_ORIGINAL = "original_max_position_embeddings"
_STRETCHING = ("linear", "dynamic", "yarn")
_OWN_BASE_OF_SLIDING_LAYERS = "rope_local_base_freq"
_LARGEST = 1 << 53
"""From here on whole numbers are not exact in the arithmetic they are used in."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Sizes of one model; None where config.json does not say. positions_from: the keys that max_positions is from."""

    model_type: str
    max_positions: int | None
    positions_from: str
    hidden_size: int | None
    num_layers: int | None
    heads: int | None
    kv_heads: int | None
    head_dim: int | None
    intermediate_size: int | None
    vocab_size: int | None
    experts: int
    experts_per_token: int
    shared_experts: int
    is_vision: bool
    is_encoder_decoder: bool
    is_quantized: bool


def read_model(folder: Path) -> ModelFacts | None:
    """The facts of the model in a folder; None if there is no config.json that can be read."""
    try:
        config = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return model_facts(config) if isinstance(config, dict) else None


def model_facts(config: Mapping[str, Any]) -> ModelFacts:
    """Read a config.json's values: aliases of old families, and null as absent (docs/launcher.md#limits)."""
    heads = _integer(config, "num_attention_heads", "n_head", "n_heads")
    positions, positions_from = _positions(config)
    return ModelFacts(
        model_type=str(config.get("model_type") or ""),
        max_positions=positions,
        positions_from=positions_from,
        hidden_size=_integer(config, "hidden_size", "n_embd"),
        num_layers=_integer(config, "num_hidden_layers", "n_layer", "n_layers"),
        heads=heads,
        kv_heads=_integer(config, "num_key_value_heads") or heads,
        head_dim=_head_dim(config, heads),
        intermediate_size=_integer(config, "intermediate_size", "n_inner"),
        vocab_size=_integer(config, "vocab_size"),
        experts=_integer(config, "num_local_experts", "num_experts", "n_routed_experts") or 1,
        experts_per_token=_integer(config, "num_experts_per_tok") or 1,
        shared_experts=_integer(config, "n_shared_experts") or 0,
        is_vision=bool(config.get("vision_config")),
        is_encoder_decoder=bool(config.get("is_encoder_decoder")),
        is_quantized=bool(config.get("quantization_config")),
    )


def _integer(config: Mapping[str, Any], *names: str) -> int | None:
    """The first that can be a size; what else a file says there is for the shard to refuse."""
    values = (config.get(name) for name in names)
    return next((value for value in values if type(value) is int and 0 < value < _LARGEST), None)


def _positions(config: Mapping[str, Any]) -> tuple[int | None, str]:
    """How long sequences may get, and by which keys: where a rotary scaling says so, longer than trained on."""
    key = next((name for name in _POSITIONS if _integer(config, name)), "")
    trained, source = _integer(config, key), f"{key} of {_FILE}"
    scaling = config.get("rope_scaling") or config.get("rope_parameters")
    if trained is None or not isinstance(scaling, dict):
        return trained, source
    kind, factor = scaling.get("rope_type") or scaling.get("type"), scaling.get("factor")
    original = _integer(config, _ORIGINAL) or _integer(scaling, _ORIGINAL)
    if kind not in _STRETCHING or not isinstance(factor, int | float) or not 1 <= factor < _LARGEST:
        return trained, source
    if original is None and _OWN_BASE_OF_SLIDING_LAYERS in config:
        return trained, source  # where a scaling is that of some layers only, files count it into the length already
    stretched = int(factor * (original or trained))
    if stretched <= trained:
        return trained, source
    return stretched, f"the rotary factor times {_ORIGINAL if original else key} of {_FILE}"


def _head_dim(config: Mapping[str, Any], heads: int | None) -> int | None:
    text = config.get("text_config")
    stated = _integer(config, "head_dim") or (_integer(text, "head_dim") if isinstance(text, dict) else None)
    hidden = _integer(config, "hidden_size", "n_embd")
    if stated is None and hidden and heads and hidden % heads == 0:
        return hidden // heads
    return 256 if stated is None and config.get("model_type") == "gemma3" else stated
