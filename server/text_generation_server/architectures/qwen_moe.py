"""Qwen 1.5 MoE A2.7B, Qwen 2 57B-A14B, Qwen 3 30B-A3B and 235B-A22B. Checked against transformers 5.23.

Traps: the chosen experts' weights sum to one only with `norm_topk_prob`. A layer is dense if `mlp_only_layers` has it,
or `decoder_sparse_step` does not divide its number from 1. Qwen 2 has an expert for all tokens, Qwen 3 has none.
With `use_sliding_window` every other layer up to `max_window_layers` slides in Qwen 2, and all do in Qwen 3.
"""

from dataclasses import replace

from text_generation_server.architectures.qwen2 import qwen2, used_window
from text_generation_server.architectures.qwen3 import with_head_norms
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.config.layer_types import layer_windows
from text_generation_server.specs.decoder import DecoderSpec, MoeSpec
from text_generation_server.specs.names import MoeNames

QWEN3_MOE_NAMES = MoeNames(
    router="mlp.gate",
    up=("mlp.experts.{}.gate_proj", "mlp.experts.{}.up_proj"),
    down="mlp.experts.{}.down_proj",
)
QWEN2_MOE_NAMES = replace(
    QWEN3_MOE_NAMES,
    shared_up=("mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj"),
    shared_down="mlp.shared_expert.down_proj",
    shared_gate="mlp.shared_expert_gate",
)


def qwen2_moe(config: ConfigDict) -> DecoderSpec:
    """The spec of a Qwen 1.5 or 2 with experts."""
    spec = qwen2(config)
    full = config.integer("max_window_layers", default=28, at_least=0)
    slides = [layer % 2 == 0 and layer < full for layer in range(spec.num_layers)]
    windows = layer_windows(config, spec.num_layers, used_window(config), slides)
    shared = config.integer("shared_expert_intermediate_size", default=5632, at_least=0)
    return replace(
        spec,
        attention=replace(spec.attention, qkv_bias=config.flag("qkv_bias", default=True), windows=windows),
        moe=replace(_moe(config, spec), shared_size=shared),
        names=replace(spec.names, moe=QWEN2_MOE_NAMES),
    )


def qwen3_moe(config: ConfigDict) -> DecoderSpec:
    """The spec of a Qwen 3 with experts."""
    spec = with_head_norms(config, qwen2(config.replaced(layer_types=None)))
    spec = replace(spec, attention=replace(spec.attention, windows=(used_window(config),) * spec.num_layers))
    return replace(spec, moe=_moe(config, spec), names=replace(spec.names, moe=QWEN3_MOE_NAMES))


def _moe(config: ConfigDict, spec: DecoderSpec) -> MoeSpec:
    return MoeSpec(
        experts=config.integer("num_experts", "num_local_experts"),
        top_k=config.integer("num_experts_per_tok"),
        inner_size=config.integer("moe_intermediate_size"),
        activation=spec.mlp.activation,
        normalise=1.0 if config.flag("norm_topk_prob", default=False) else None,
        dense_layers=_dense_layers(config, spec.num_layers),
    )


def _dense_layers(config: ConfigDict, layers: int) -> frozenset[int]:
    named = () if config.get("mlp_only_layers") is None else config.numbers("mlp_only_layers")
    step = config.integer("decoder_sparse_step", default=1)
    return frozenset(layer for layer in range(layers) if layer in named or (layer + 1) % step)
