"""GLM-4 9B (files for transformers: `-hf`, and the later 0414 models). Checked against transformers 5.23.

Traps: half of each head is rotated, in pairs (2i, 2i + 1); `attention_bias` is not for the output projection. In 0414
`post_attention_layernorm` is the norm before the MLP, and `post_self_attn_layernorm` that of the attention's output.
"""

from dataclasses import replace

from text_generation_server.architectures.llama import LLAMA_NAMES, llama
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.config.rope import read_rope
from text_generation_server.specs.decoder import DecoderSpec, Wiring

GLM_NAMES = replace(LLAMA_NAMES, up=("mlp.gate_up_proj",))
GLM4_NAMES = replace(GLM_NAMES, attention_out_norm="post_self_attn_layernorm", mlp_out_norm="post_mlp_layernorm")


def glm(config: ConfigDict) -> DecoderSpec:
    """The spec of a GLM-4."""
    spec = llama(config.replaced(rms_norm_eps=config.number("rms_norm_eps", default=1.5625e-7)))
    attention = replace(
        spec.attention,
        qkv_bias=config.flag("attention_bias", default=True),
        out_bias=False,
        rope=read_rope(config, spec.attention.head_dim, partial=0.5, interleaved=True),
    )
    return replace(spec, attention=attention, names=GLM_NAMES)


def glm4(config: ConfigDict) -> DecoderSpec:
    """The spec of a GLM-4-0414."""
    return replace(glm(config), names=GLM4_NAMES, wiring=Wiring.SANDWICH)
