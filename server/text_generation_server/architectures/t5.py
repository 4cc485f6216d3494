"""T5, T5 1.1, Flan-T5 and mT5. Checked against transformers 5.24.

Traps: scores are not scaled, and a head's width is not hidden_size / heads. `tie_word_embeddings` false means that what
the decoder makes is not scaled by d_model^-0.5, and a head of its own; transformers 5 writes the former as
`scale_decoder_outputs`, as it ties heads in every config, and keeps one that a checkpoint has all the same.
"""

from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.activation import Activation
from text_generation_server.specs.decoder import HeadSpec, HeadTie, MlpSpec, rms_norm
from text_generation_server.specs.seq2seq import RelativeBiasSpec, Seq2SeqNames, Seq2SeqSpec, StackNames

_PARTS = ("q", "k", "v", "o")


def t5(config: ConfigDict) -> Seq2SeqSpec:
    """The spec of a T5."""
    tied = config.flag("tie_word_embeddings", default=True)
    return _spec(config, "relu", scaled=config.flag("scale_decoder_outputs", default=tied))


def mt5(config: ConfigDict) -> Seq2SeqSpec:
    """The spec of an mT5: never scaled, whatever its config says of ties."""
    return _spec(config, "gated-gelu", scaled=False)


def _spec(config: ConfigDict, feed_forward: str, scaled: bool) -> Seq2SeqSpec:
    hidden = config.integer("d_model")
    kind, gated = _feed_forward(config, feed_forward)
    layers = config.integer("num_layers")
    return Seq2SeqSpec(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden,
        encoder_layers=layers,
        decoder_layers=config.integer("num_decoder_layers", default=layers),
        heads=config.integer("num_heads"),
        head_dim=config.integer("d_kv"),
        norm=rms_norm(config.number("layer_norm_epsilon", default=1e-6)),
        mlp=MlpSpec(config.integer("d_ff"), kind, gated),
        bias=RelativeBiasSpec(
            config.integer("relative_attention_num_buckets", default=32, at_least=4),
            config.integer("relative_attention_max_distance", default=128),
        ),
        names=_names(gated),
        head=HeadSpec(HeadTie.IF_ABSENT, scale=hidden**-0.5 if scaled else 1.0),
        start=config.integer("decoder_start_token_id", "pad_token_id", default=0, at_least=0),
    )


def _feed_forward(config: ConfigDict, default: str) -> tuple[Activation, bool]:
    name = config.text("feed_forward_proj", default=default)
    gated = name.startswith("gated-")
    # By "gated-gelu" these files mean the approximation.
    plain = "gelu_new" if name == "gated-gelu" else name.removeprefix("gated-")
    return config.replaced(feed_forward_proj=plain).activation("feed_forward_proj"), gated


def _names(gated: bool) -> Seq2SeqNames:
    return Seq2SeqNames(
        embedding="shared",
        encoder=_stack("encoder", gated, mlp=1),
        decoder=_stack("decoder", gated, mlp=2),
        unused=(
            "encoder.embed_tokens.weight",
            "decoder.embed_tokens.weight",
            "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
        ),
    )


def _stack(side: str, gated: bool, mlp: int) -> StackNames:
    """mlp: place of the MLP in a layer; behind the first, which is self-attention, there may be one that crosses."""
    q, k, v, o = (f"layer.0.SelfAttention.{part}" for part in _PARTS)
    return StackNames(
        layer=f"{side}.block.{{}}",
        attention_norm="layer.0.layer_norm",
        attention=(q, k, v, o),
        cross_norm="layer.1.layer_norm" if mlp > 1 else "",
        cross=tuple(f"layer.1.EncDecAttention.{part}" for part in _PARTS) if mlp > 1 else (),
        mlp_norm=f"layer.{mlp}.layer_norm",
        up=tuple(f"layer.{mlp}.DenseReluDense.{part}" for part in (("wi_0", "wi_1") if gated else ("wi",))),
        down=f"layer.{mlp}.DenseReluDense.wo",
        bias=f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias",
        final_norm=f"{side}.final_layer_norm",
    )
