"""gpt-oss 20B and 120B: sinks in every head's softmax, experts with biases. Checked against transformers 5.24.

Traps: without `layer_types` every other layer slides, the first one first. Heads have 64 numbers where no key says.
Biases are everywhere in attention unless `attention_bias` says otherwise. A gate and what it lets through take turns in
the experts' first tensor, whose activation is not `hidden_act`. Plain experts are stored [in, out], those of few bits
[out, in]. Weights of chosen experts are a softmax over them alone, which is that over all divided by its sum.
"""

from dataclasses import replace

from text_generation_server.architectures.llama import LLAMA_NAMES, llama
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.config.layer_types import every_other_than, layer_windows
from text_generation_server.specs.activation import GAIN, LIMIT, Activation
from text_generation_server.specs.decoder import DecoderSpec, MoeSpec
from text_generation_server.specs.names import MoeNames

_NAMES = replace(
    LLAMA_NAMES,
    sinks="self_attn.sinks",
    moe=MoeNames(
        router="mlp.router",
        up=("mlp.experts.gate_up_proj",),
        down="mlp.experts.down_proj",
        taking_turns=True,
        inputs_first=True,
        fused_router="mlp.router",
    ),
)

_ROPE = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}
"""Where no key says."""


def gpt_oss(config: ConfigDict) -> DecoderSpec:
    """The spec of a gpt-oss."""
    for key, served in (("swiglu_alpha", GAIN), ("swiglu_limit", LIMIT)):
        if config.number(key, default=served) != served:
            raise config.refusal(key, config.get(key), str(served))
    spec = llama(_with_defaults(config))
    layers = spec.num_layers
    windows = layer_windows(
        config, layers, config.nullable_integer("sliding_window", 128), every_other_than(2, config, layers)
    )
    return replace(
        spec,
        attention=replace(spec.attention, windows=windows, sinks=True),
        moe=MoeSpec(
            experts=config.integer("num_local_experts", "num_experts"),
            top_k=config.integer("num_experts_per_tok", "experts_per_token", default=4),
            inner_size=spec.mlp.inner_size,
            activation=Activation.CLAMPED_SWIGLU,
            bias=True,
            router_bias=True,
        ),
        names=_NAMES,
    )


def _with_defaults(config: ConfigDict) -> ConfigDict:
    rope = {} if config.get("rope_scaling") or config.get("rope_parameters") else {"rope_parameters": _ROPE}
    return config.replaced(
        head_dim=config.integer("head_dim", default=64),
        attention_bias=config.flag("attention_bias", default=True),
        rms_norm_eps=config.number("rms_norm_eps", default=1e-5),
        rope_theta=config.number("rope_theta", default=150000.0),
        **rope,
    )
