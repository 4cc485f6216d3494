"""Bamba 9B: Mamba 2 layers, and attention in a few. Checked against transformers 5.24.

Traps: half of each head rotates where the config does not say. `attn_layer_indices` names the layers with attention;
all others are recurrences. There is an MLP in every layer.
"""

from dataclasses import replace

from text_generation_server.architectures.llama import llama
from text_generation_server.architectures.mamba2 import SsdKeys, read_ssd, ssd_names
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.config.rope import read_rope
from text_generation_server.specs.decoder import DecoderSpec

HYBRID_KEYS = SsdKeys(
    heads="mamba_n_heads",
    head_dim="mamba_d_head",
    groups="mamba_n_groups",
    state="mamba_d_state",
    width="mamba_d_conv",
    expand="mamba_expand",
    bias="mamba_proj_bias",
    conv_bias="mamba_conv_bias",
    usual_groups=1,
    usual_state=256,
)
"""What such models call what `read_ssd` asks for."""


def bamba(config: ConfigDict) -> DecoderSpec:
    """The spec of a Bamba."""
    spec = llama(config.replaced(rms_norm_eps=config.number("rms_norm_eps", default=1e-5)))
    named = config.get("attn_layer_indices") is not None
    attending = {int(layer) for layer in config.numbers("attn_layer_indices")} if named else set()
    names = replace(
        spec.names,
        mlp_norm="pre_ff_layernorm",
        up=("feed_forward.gate_proj", "feed_forward.up_proj"),
        down="feed_forward.down_proj",
        final_norm="model.final_layernorm",
    )
    return replace(
        spec,
        attention=replace(spec.attention, rope=read_rope(config, spec.attention.head_dim, partial=0.5)),
        names=names,
        ssd=read_ssd(config, spec.hidden_size, spec.norm.eps, ssd_names("mamba"), HYBRID_KEYS),
        ssd_layers=frozenset(range(spec.num_layers)) - attending,
    )
