"""Gemma 2 and 3 (text): Gemma with output norms on both branches and sliding layers. Checked against transformers 5.23.

Traps: scores are scaled by `query_pre_attn_scalar`, not by the width of a head. Gemma 2 bounds scores and logits, also
where its keys are left out, but not where they are `null`. Gemma 3 rotates its sliding layers by
`rope_local_base_freq`, never scaled; a `rope_scaling` is that of the full ones. Its config.json may leave out what is
as in the 4B: heads, their width, the vocabulary.
"""

from dataclasses import replace

from text_generation_server.architectures.gemma import gemma
from text_generation_server.architectures.llama import LLAMA_NAMES
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.config.layer_types import every_other_than, layer_windows
from text_generation_server.config.rope import read_max_positions, read_rope
from text_generation_server.specs.decoder import DecoderSpec, PositionLimit, QkNormScope, QkNormSpec, Wiring
from text_generation_server.specs.rope import RopeSpec

GEMMA2_NAMES = replace(
    LLAMA_NAMES,
    attention_out_norm="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm",
    mlp_out_norm="post_feedforward_layernorm",
)
GEMMA3_NAMES = replace(GEMMA2_NAMES, q_norm="self_attn.q_norm", k_norm="self_attn.k_norm")
GEMMA3_DEFAULTS = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208}


def gemma2(config: ConfigDict) -> DecoderSpec:
    """The spec of a Gemma 2."""
    spec = _sandwiched(config, pattern=2)
    return replace(
        spec,
        attention=replace(spec.attention, softcap=config.nullable_number("attn_logit_softcapping", 50.0)),
        head=replace(spec.head, softcap=config.nullable_number("final_logit_softcapping", 30.0)),
    )


def gemma3(config: ConfigDict) -> DecoderSpec:
    """The spec of the text model of a Gemma 3."""
    config = config.replaced(**{key: config.integer(key, default=size) for key, size in GEMMA3_DEFAULTS.items()})
    spec = replace(_sandwiched(_of_full_layers(config), pattern=6), max_positions=_max_positions(config))
    full, sliding = _ropes(config, spec.attention.head_dim)
    attention = replace(
        spec.attention,
        rope=None,
        ropes=tuple(full if window is None else sliding for window in spec.attention.windows),
        qk_norm=QkNormSpec(spec.norm, QkNormScope.HEAD),
    )
    return replace(spec, attention=attention, names=GEMMA3_NAMES)


def _sandwiched(config: ConfigDict, pattern: int) -> DecoderSpec:
    spec = gemma(config)
    window = config.nullable_integer("sliding_window", 4096)
    slides = every_other_than(pattern, config, spec.num_layers)
    return replace(
        spec,
        attention=replace(
            spec.attention,
            scale=config.number("query_pre_attn_scalar", default=256.0) ** -0.5,
            windows=layer_windows(config, spec.num_layers, window, slides),
        ),
        mlp=replace(spec.mlp, activation=config.activation("hidden_activation", default="gelu_pytorch_tanh")),
        names=GEMMA2_NAMES,
        head=replace(spec.head, softcap=config.optional_number("final_logit_softcapping")),
        wiring=Wiring.SANDWICH,
    )


def _ropes(config: ConfigDict, head_dim: int) -> tuple[RopeSpec, RopeSpec]:
    """Of full and of sliding layers."""
    sliding = config.replaced(
        rope_parameters=config.section("rope_parameters").get("sliding_attention"),
        rope_theta=config.get("rope_local_base_freq"),
        rope_scaling=None,
    )
    return read_rope(_of_full_layers(config), head_dim, theta=1e6), read_rope(sliding, head_dim, theta=1e4)


def _of_full_layers(config: ConfigDict) -> ConfigDict:
    """The config with the rotary parameters of full layers only; here a `rope_scaling` adds to them."""
    own = config.section("rope_parameters").get("full_attention") or {}
    return config.replaced(rope_parameters={**own, **(config.get("rope_scaling") or {})}, rope_scaling=None)


def _max_positions(config: ConfigDict) -> PositionLimit | None:
    """Published files have the factor in `max_position_embeddings` already, and do not name an original length."""
    full = _of_full_layers(config)
    stated = full.section("rope_parameters").get("original_max_position_embeddings") is not None
    return read_max_positions(full if stated else config.replaced(rope_parameters=None, rope_scaling=None))
