"""Reads rotary embeddings from a config, in the spellings of transformers up to 4 and from 5 on. Knows no architecture.

Up to 4: `rope_theta`, `partial_rotary_factor` and `rope_scaling: {type | rope_type, …}` at the top.
From 5 on: `rope_parameters: {rope_theta, partial_rotary_factor, rope_type, …}`.
A file with both means what transformers makes of it: one of the two objects counts, `rope_scaling` if it says anything,
and keys at the top fill what that one leaves open; the other object counts for nothing.
"""

import math

from text_generation_server.config.configdict import ConfigDict
from text_generation_server.errors import UnsupportedModel
from text_generation_server.specs.decoder import PositionLimit
from text_generation_server.specs.rope import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongropeScaling,
    RopeScaling,
    RopeSpec,
    YarnScaling,
)

_ORIGINAL = "original_max_position_embeddings"
POSITION_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len")
"""Of the context's length, in files of any family."""
_STRETCHING = ("linear", "dynamic", "yarn")
"""Kinds whose `factor` multiplies the context; files with another kind give the longer context themselves."""


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
        UnsupportedModel: a kind of scaling that is not served, or a rotary embedding for each kind of layer.
    """
    parameters = _parameters(config)
    if apart := parameters.sections():
        raise parameters.refusal(apart[0], parameters.get(apart[0]), "the same rotary embedding in all layers")
    theta = parameters.number("rope_theta", default=config.number(theta_key, "rope_theta", default=theta))
    partial = parameters.number(
        "partial_rotary_factor", default=config.number(partial_key, "partial_rotary_factor", default=partial)
    )
    return RopeSpec(int(head_dim * partial), theta, _read_scaling(parameters, config), interleaved)


def read_axes(config: ConfigDict, pairs: int, sections: tuple[int, int, int], interleaved: bool) -> tuple[int, ...]:
    """By which of a token's coordinates each of so many pairs turns: `RopeSpec.axes`.

    `mrope_section`, or else `sections`: how many turn by time, by row, by column; these one after the other, or
    interleaved: in turn, and by time those that are left over.
    """
    parameters = _parameters(config)
    counts = parameters.sizes("mrope_section", 3) or sections
    if sum(counts) != pairs:
        raise parameters.refusal("mrope_section", list(counts), f"three numbers with a sum of {pairs}")
    if not interleaved:
        return tuple(axis for axis, count in enumerate(counts) for _ in range(count))
    return tuple(pair % 3 if pair < 3 * counts[pair % 3] else 0 for pair in range(pairs))


def read_max_positions(config: ConfigDict, *keys: str, default: int | None = None) -> PositionLimit | None:
    """How many positions a rotary model is good for: those of its keys, or as many more as its scaling adds.

    keys: of the context's length, the first that is present; else `default`, which a scaling may stretch as well.
    """
    keys = keys or POSITION_KEYS[:1]
    trained = config.optional_integer(*keys) or default
    if trained is None:
        return None
    source = config.source(*keys) or "default of its model_type"
    parameters = _parameters(config)
    if _kind(parameters) not in _STRETCHING or parameters.get("factor") is None:
        return PositionLimit(trained, source)
    holder = config if config.get(_ORIGINAL) is not None else parameters
    stretched = int(parameters.number("factor") * holder.integer(_ORIGINAL, default=trained))
    if stretched <= trained:
        return PositionLimit(trained, source)
    return PositionLimit(stretched, f"{parameters.source('factor')} times {holder.source(_ORIGINAL) or source}")


def override_scaling(config: ConfigDict, kind: str, factor: float) -> ConfigDict:
    """The config with the scaling that an operator asked for instead of its own, and as many more positions.

    Raises:
        UnsupportedModel: a kind other than linear and dynamic.
    """
    if kind not in _STRETCHING[:2]:
        raise UnsupportedModel(
            f"rope scaling {kind!r} was asked for, which is not supported; expected linear or dynamic"
        )
    own = _parameters(config)
    kept = {key: own.get(key) for key in ("rope_theta", "partial_rotary_factor")}
    trained = config.optional_integer(*POSITION_KEYS)
    return config.replaced(rope_scaling={**kept, "rope_type": kind, "factor": factor, _ORIGINAL: trained})


def _parameters(config: ConfigDict) -> ConfigDict:
    """The one object that counts."""
    return config.section("rope_scaling") if config.get("rope_scaling") else config.section("rope_parameters")


def _kind(parameters: ConfigDict) -> str:
    return parameters.text("rope_type", "type", default="default")


def _read_scaling(scaling: ConfigDict, config: ConfigDict) -> RopeScaling | None:
    kind = _kind(scaling)
    match kind:
        case "default" | "mrope":  # of the latter see `read_axes`
            return None
        case "linear":
            return LinearScaling(scaling.number("factor"))
        case "dynamic":
            return DynamicScaling(scaling.number("factor"), config.integer(*POSITION_KEYS))
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
    original = _original_max_positions(scaling, config)
    factor = _factor(scaling, config, original)
    mscale, every = scaling.optional_number("mscale"), scaling.optional_number("mscale_all_dim")
    sharper = _sharpness(factor)
    if mscale and every:  # one alone counts for nothing
        sharper = _sharpness(factor, mscale) / _sharpness(factor, every)
    return YarnScaling(
        factor=factor,
        original_max_positions=original,
        beta_fast=scaling.number("beta_fast", default=32.0),
        beta_slow=scaling.number("beta_slow", default=1.0),
        attention_factor=scaling.number("attention_factor", default=sharper),
        truncate=scaling.flag("truncate", default=True),
    )


def _sharpness(factor: float, scale: float = 1.0) -> float:
    return 0.1 * scale * math.log(max(factor, 1.0)) + 1.0


def _read_longrope(scaling: ConfigDict, config: ConfigDict) -> LongropeScaling:
    for key in ("short_mscale", "long_mscale"):
        if scaling.get(key) is not None:
            raise scaling.refusal(key, scaling.get(key), "none")
    original = _original_max_positions(scaling, config)
    factor = _factor(scaling, config, original)
    sharper = 1.0 if factor <= 1.0 else math.sqrt(1 + math.log(factor) / math.log(original))
    return LongropeScaling(
        short_factor=scaling.numbers("short_factor"),
        long_factor=scaling.numbers("long_factor"),
        original_max_positions=original,
        attention_factor=scaling.number("attention_factor", default=sharper),
    )


def _factor(scaling: ConfigDict, config: ConfigDict, original: int) -> float:
    return scaling.number("factor", default=config.integer(*POSITION_KEYS, default=original) / original)


def _original_max_positions(scaling: ConfigDict, config: ConfigDict) -> int:
    """Of llama3, yarn and longrope: the key at the top comes before the same key of the object."""
    stated = config.optional_integer(_ORIGINAL) or scaling.optional_integer(_ORIGINAL)
    return stated or config.integer(*POSITION_KEYS)
