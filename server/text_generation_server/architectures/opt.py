"""OPT of all sizes, and Galactica. Checked against transformers 5.23.

Traps: the table of positions has two rows more, in front. A layer's second norm is called `final_layer_norm` too.
350M has norms after its branches, none at the end, and embeddings of another width, which are the tied head as well.
"""

from dataclasses import replace

from text_generation_server.architectures.llama import LLAMA_NAMES
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.decoder import AttentionSpec, DecoderSpec, MlpSpec, Wiring, layer_norm
from text_generation_server.specs.names import CheckpointNames

OPT_NAMES = replace(
    LLAMA_NAMES,
    embedding="model.decoder.embed_tokens",
    positions="model.decoder.embed_positions",
    layer="model.decoder.layers.{}",
    attention_norm="self_attn_layer_norm",
    mlp_norm="final_layer_norm",
    attention_out="self_attn.out_proj",
    up=("fc1",),
    down="fc2",
    final_norm="model.decoder.final_layer_norm",
)


def opt(config: ConfigDict) -> DecoderSpec:
    """The spec of an OPT."""
    config.reject("scale_embeddings", True)
    config.reject("learned_embeddings", False)
    heads, hidden = config.integer("num_attention_heads"), config.integer("hidden_size")
    bias, affine = config.flag("enable_bias", default=True), config.flag("layer_norm_elementwise_affine", default=True)
    width = config.integer("word_embed_proj_dim", default=hidden)
    pre_norm = config.flag("do_layer_norm_before", default=True)
    return DecoderSpec(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden,
        num_layers=config.integer("num_hidden_layers"),
        norm=layer_norm(1e-5, bias=affine, weight=affine),
        attention=AttentionSpec(heads, heads, hidden // heads, qkv_bias=bias, out_bias=bias),
        mlp=MlpSpec(
            config.integer("ffn_dim"), config.activation("activation_function", default="relu"), gated=False, bias=bias
        ),
        names=_names(
            final_norm=pre_norm and not config.flag("_remove_final_layer_norm", default=False),
            projected=width != hidden,
        ),
        head=config.head(tied_by_default=True),
        wiring=Wiring.SEQUENTIAL if pre_norm else Wiring.POST_NORM,
        max_positions=config.positions("max_position_embeddings"),
        position_offset=2,
        embedding_size=width,
    )


def _names(final_norm: bool, projected: bool) -> CheckpointNames:
    return replace(
        OPT_NAMES,
        final_norm=OPT_NAMES.final_norm if final_norm else "",
        embedding_in="model.decoder.project_in" if projected else "",
        embedding_out="model.decoder.project_out" if projected else "",
    )
