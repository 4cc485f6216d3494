"""Phi 3 mini and medium, 3.5 mini, 4 and 4 mini: Mistral with fused projections. Checked against transformers 5.23.

Traps: longrope is called `su` in older files, and begins at 4096 positions where the top of the file does not say. The
window of the 128k files is longer than what they were made for.
Phi 3 small and Phi 3.5 MoE are other architectures.
"""

from dataclasses import replace

from text_generation_server.architectures.llama import LLAMA_NAMES
from text_generation_server.architectures.mistral import llama_with_window
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.decoder import DecoderSpec
from text_generation_server.specs.names import QkvLayout

PHI3_NAMES = replace(LLAMA_NAMES, qkv=("self_attn.qkv_proj",), qkv_layout=QkvLayout.CONCAT, up=("mlp.gate_up_proj",))


def phi3(config: ConfigDict) -> DecoderSpec:
    """The spec of a Phi 3 or 4."""
    original = config.integer("original_max_position_embeddings", default=4096)
    eps = config.number("rms_norm_eps", default=1e-5)
    filled = config.replaced(original_max_position_embeddings=original, rms_norm_eps=eps)
    return replace(llama_with_window(filled), names=PHI3_NAMES)
