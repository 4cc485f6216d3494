"""Reads rotary embeddings from a config, in the spellings of transformers up to 4 and from 5 on. Knows no architecture.

Up to 4: `rope_theta`, `partial_rotary_factor` and `rope_scaling: {type | rope_type, …}` at the top.
From 5 on: `rope_parameters: {rope_theta, partial_rotary_factor, rope_type, …}`.
"""

import math
from collections.abc import Mapping
from typing import Any

from text_generation_server.errors import UnsupportedModel
from text_generation_server.layers.frequencies import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongropeScaling,
    RopeScaling,
    RopeSpec,
    YarnScaling,
)
from text_generation_server.models.configdict import REQUIRED, ConfigDict


def read_rope(
    config: ConfigDict,
    head_dim: int,
    *,
    partial: float = 1.0,
    theta: float = 10000.0,
    theta_key: str = "rope_theta",
    partial_key: str = "partial_rotary_factor",
    interleaved: bool = False,
) -> RopeSpec:
    """The rotary embedding of heads of `head_dim` numbers; the keys are a family's own older spellings.

    Raises:
        UnsupportedModel: a kind of scaling that is not served.
    """
    parameters = config.section("rope_parameters")
    theta = parameters.number("rope_theta", default=config.number(theta_key, "rope_theta", default=theta))
    partial = parameters.number(
        "partial_rotary_factor", default=config.number(partial_key, "partial_rotary_factor", default=partial)
    )
    scaling = config.section("rope_scaling") if config.get("rope_scaling") is not None else parameters
    return RopeSpec(int(head_dim * partial), theta, _read_scaling(scaling, config), interleaved)


def override_scaling(config: ConfigDict, kind: str, factor: float) -> ConfigDict:
    """The config with the scaling that an operator asked for instead of its own, and as many more positions.

    Raises:
        UnsupportedModel: a kind other than linear and dynamic.
    """
    if kind not in ("linear", "dynamic"):
        raise UnsupportedModel(
            f"rope scaling {kind!r} was asked for, which is not supported; expected linear or dynamic"
        )
    trained = config.optional_integer("max_position_embeddings")
    return config.replaced(
        rope_parameters=_unscaled(config.get("rope_parameters") or {}),
        rope_scaling={"rope_type": kind, "factor": factor, "original_max_position_embeddings": trained},
        max_position_embeddings=None if trained is None else int(trained * factor),
    )


def _unscaled(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What is left without a scaling; some models have parameters for each kind of layer."""
    return {
        key: _unscaled(value) if isinstance(value, dict) else value
        for key, value in parameters.items()
        if isinstance(value, dict) or key in ("rope_theta", "partial_rotary_factor")
    }


def _read_scaling(scaling: ConfigDict, config: ConfigDict) -> RopeScaling | None:
    kind = scaling.text("rope_type", "type", default="default")
    match kind:
        case "default":
            return None
        case "linear":
            return LinearScaling(scaling.number("factor"))
        case "dynamic":
            return DynamicScaling(scaling.number("factor"), _original_max_positions(scaling, config))
        case "longrope" | "su":
            return _read_longrope(scaling, config)
        case "llama3":
            return Llama3Scaling(
                factor=scaling.number("factor"),
                low_freq_factor=scaling.number("low_freq_factor"),
                high_freq_factor=scaling.number("high_freq_factor"),
                original_max_positions=_original_max_positions(scaling, config),
            )
        case "yarn":
            return _read_yarn(scaling, config)
    raise scaling.refusal("rope_type", kind, "default, linear, dynamic, llama3, yarn or longrope")


def _read_yarn(scaling: ConfigDict, config: ConfigDict) -> YarnScaling:
    for key in ("mscale", "mscale_all_dim"):
        if scaling.get(key) is not None:
            raise scaling.refusal(key, scaling.get(key), "none")
    factor = scaling.number("factor")
    return YarnScaling(
        factor=factor,
        original_max_positions=_original_max_positions(scaling, config),
        beta_fast=scaling.number("beta_fast", default=32.0),
        beta_slow=scaling.number("beta_slow", default=1.0),
        attention_factor=scaling.number("attention_factor", default=0.1 * math.log(max(factor, 1.0)) + 1.0),
        truncate=scaling.flag("truncate", default=True),
    )


def _read_longrope(scaling: ConfigDict, config: ConfigDict) -> LongropeScaling:
    for key in ("short_mscale", "long_mscale"):
        if scaling.get(key) is not None:
            raise scaling.refusal(key, scaling.get(key), "none")
    original = _original_max_positions(scaling, config)
    factor = scaling.number("factor", default=config.integer("max_position_embeddings", default=original) / original)
    sharper = 1.0 if factor <= 1.0 else math.sqrt(1 + math.log(factor) / math.log(original))
    return LongropeScaling(
        short_factor=scaling.numbers("short_factor"),
        long_factor=scaling.numbers("long_factor"),
        original_max_positions=original,
        attention_factor=scaling.number("attention_factor", default=sharper),
    )


def _original_max_positions(scaling: ConfigDict, config: ConfigDict) -> int:
    key = "original_max_position_embeddings"
    return scaling.integer(key, default=config.optional_integer(key, "max_position_embeddings") or REQUIRED)
