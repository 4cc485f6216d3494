"""Mixtral 8x7B and 8x22B: Mistral with experts instead of MLPs. Checked against transformers 5.23.

Traps: theta is 1e6 and the norms' eps 1e-5 where no keys give them.
"""

from dataclasses import replace

from text_generation_server.architectures.mistral import llama_with_window
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.decoder import DecoderSpec, MoeSpec
from text_generation_server.specs.names import MoeNames

MIXTRAL_MOE_NAMES = MoeNames(
    router="block_sparse_moe.gate",
    up=("block_sparse_moe.experts.{}.w1", "block_sparse_moe.experts.{}.w3"),
    down="block_sparse_moe.experts.{}.w2",
)


def mixtral(config: ConfigDict) -> DecoderSpec:
    """The spec of a Mixtral."""
    theta, eps = config.number("rope_theta", default=1e6), config.number("rms_norm_eps", default=1e-5)
    spec = llama_with_window(config.replaced(rope_theta=theta, rms_norm_eps=eps))
    return replace(
        spec,
        moe=MoeSpec(
            experts=config.integer("num_local_experts", "num_experts"),
            top_k=config.integer("num_experts_per_tok", default=2),
            inner_size=spec.mlp.inner_size,
            activation=spec.mlp.activation,
        ),
        names=replace(spec.names, moe=MIXTRAL_MOE_NAMES),
    )
