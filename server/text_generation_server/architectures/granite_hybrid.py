"""Granite 4.0 H: Mamba 2 layers, and attention in a few, with Granite's multipliers. Checked against transformers 5.24.

Traps: `layer_types` says mamba and attention, or from transformers 5 on linear_attention and full_attention. There are
no positions unless `position_embedding_type` is rope. The MLP that every layer has is the "shared" one; its gate lies
before the rest in one tensor. With experts it is the one that all tokens pass, without a gate of its own.
"""

from dataclasses import replace

from text_generation_server.architectures.bamba import HYBRID_KEYS
from text_generation_server.architectures.granite import granite
from text_generation_server.architectures.mamba2 import read_ssd, ssd_names
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.decoder import DecoderSpec, MlpSpec, MoeSpec
from text_generation_server.specs.names import MoeNames

_MOE_NAMES = MoeNames(
    router="block_sparse_moe.router.layer",
    up=("block_sparse_moe.input_linear.weight",),
    down="block_sparse_moe.output_linear.weight",
    shared_up=("shared_mlp.input_linear",),
    shared_down="shared_mlp.output_linear",
)

_RECURRENT = {"mamba": True, "linear_attention": True, "attention": False, "full_attention": False}


def granite_hybrid(config: ConfigDict) -> DecoderSpec:
    """The spec of a Granite hybrid."""
    if config.get("position_embedding_type") not in (None, "rope", "nope"):
        raise config.refusal("position_embedding_type", config.get("position_embedding_type"), "rope or none")
    spec = granite(config)
    attention = spec.attention
    if config.get("position_embedding_type") != "rope":
        attention = replace(attention, rope=None)
    shared = config.integer("shared_intermediate_size", default=1024)
    experts = config.integer("num_local_experts", default=8, at_least=0)
    return replace(
        spec,
        attention=attention,
        mlp=MlpSpec(shared, spec.mlp.activation, gated=True),
        moe=MoeSpec(
            experts, config.integer("num_experts_per_tok"), spec.mlp.inner_size, spec.mlp.activation, shared_size=shared
        )
        if experts
        else None,
        names=replace(
            spec.names, up=_MOE_NAMES.shared_up, down=_MOE_NAMES.shared_down, moe=_MOE_NAMES if experts else None
        ),
        ssd=read_ssd(config, spec.hidden_size, spec.norm.eps, ssd_names("mamba"), HYBRID_KEYS),
        ssd_layers=_recurrent_layers(config, spec.num_layers),
    )


def _recurrent_layers(config: ConfigDict, layers: int) -> frozenset[int]:
    kinds = config.per_layer("layer_types", layers) or ("mamba",) * layers
    if unknown := [kind for kind in kinds if kind not in _RECURRENT]:
        raise config.refusal("layer_types", unknown[0], f"each one of {', '.join(_RECURRENT)}")
    return frozenset(layer for layer, kind in enumerate(kinds) if _RECURRENT[kind])
