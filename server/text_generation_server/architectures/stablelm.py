"""StableLM 3B, Zephyr 3B, StableLM 2 1.6B and 12B: Llama with layer norms. Checked against transformers 5.23.

Traps: with `use_parallel_residual` (12B) both branches share one norm. Norms of query and key heads (`qk_layernorm`)
have a weight tensor for each head and no bias, while layers' norms have one. A quarter of each head is rotated where
`partial_rotary_factor` is absent.
"""

from dataclasses import replace

from text_generation_server.architectures.llama import llama
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.config.rope import read_rope
from text_generation_server.specs.decoder import DecoderSpec, QkNormScope, QkNormSpec, Wiring, layer_norm


def stablelm(config: ConfigDict) -> DecoderSpec:
    """The spec of a StableLM."""
    spec = llama(config)
    eps = config.number("layer_norm_eps", default=1e-5)
    qk_norm = QkNormSpec(layer_norm(eps, bias=False), QkNormScope.EACH_HEAD)
    spec = replace(
        spec,
        norm=layer_norm(eps),
        attention=replace(
            spec.attention,
            qkv_bias=config.flag("use_qkv_bias", default=False),
            rope=read_rope(config, spec.attention.head_dim, partial=0.25),
            qk_norm=qk_norm if config.flag("qk_layernorm", default=False) else None,
        ),
        names=replace(spec.names, q_norm="self_attn.q_layernorm.norms.{}", k_norm="self_attn.k_layernorm.norms.{}"),
    )
    if config.flag("use_parallel_residual", default=False):
        return replace(spec, wiring=Wiring.PARALLEL, names=replace(spec.names, mlp_norm=""))
    return spec
