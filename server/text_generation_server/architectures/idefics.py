"""Idefics (1): a Llama, before some of whose layers gated ones attend to images. Checked against transformers 5.24.

Traps: the vocabulary's last rows are tensors of their own, in embeddings and head. What a gated layer's attention finds
is nothing to a token before all images, but its MLP is for every token. Features are the tower's, its class token's
too, without the norm behind all layers. A resampler's norms have an eps of 1e-5, whatever the others have.
"""

from dataclasses import replace

from text_generation_server.architectures.clip import clip_tower
from text_generation_server.architectures.llama import llama
from text_generation_server.architectures.text_part import LLAMA_PART, with_defaults
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.crossing import CrossNames, CrossSpec, Views
from text_generation_server.specs.decoder import DecoderSpec
from text_generation_server.specs.vision import ResamplerProjector, TowerSpec, VisionSpec

_CROSS_NAMES = CrossNames(
    attention_norm="input_layernorm",
    attention=("cross_attn.q_proj", "cross_attn.k_proj", "cross_attn.v_proj", "cross_attn.o_proj"),
    attention_gate="alpha_cross_attn",
    mlp_norm="post_attention_layernorm",
    up=("mlp.gate_proj", "mlp.up_proj"),
    down="mlp.down_proj",
    mlp_gate="alpha_dense",
)
_GATES = {"float": 0, "vector": 1}


def idefics(config: ConfigDict) -> DecoderSpec:
    """The spec of an Idefics."""
    config.reject("tie_word_embeddings", True)
    text = llama(with_defaults(config, LLAMA_PART.defaults))
    more = config.integer("additional_vocab_size", default=0, at_least=0)
    tower = _tower(config.section("vision_config"))
    resampler = _resampler(config)
    names = text.names
    if more:
        names = replace(
            names, more_embeddings="model.embed_tokens.additional_embedding", more_head="lm_head.additional_fc"
        )
    return replace(
        text,
        vocab_size=text.vocab_size + more,
        more_tokens=more,
        names=names,
        vision=VisionSpec(tower, resampler),
        crossing=_crossing(config, text, tower, resampler),
    )


def _crossing(
    config: ConfigDict, text: DecoderSpec, tower: TowerSpec, resampler: ResamplerProjector | None
) -> CrossSpec:
    interval = config.integer("cross_layer_interval", default=1)
    if text.num_layers % interval:
        raise config.refusal("cross_layer_interval", interval, f"a divisor of {text.num_layers}, the number of layers")
    normed = config.flag("qk_layer_norms", default=False)
    kind = config.text("alpha_type", default="float")
    if kind not in _GATES:
        raise config.refusal("alpha_type", kind, " or ".join(_GATES))
    ends = config.get("eos_token_id")
    q_norm, k_norm = ("cross_attn.q_layer_norm", "cross_attn.k_layer_norm") if normed else ("", "")
    return CrossSpec(
        layers=tuple(
            (layer * interval, f"model.gated_cross_attn_layers.{layer}.")
            for layer in range(text.num_layers // interval)
        ),
        instead=False,
        heads=text.attention.heads,
        kv_heads=text.attention.heads,
        head_dim=text.attention.head_dim,
        width=tower.hidden_size,
        features=tower.side**2 + 1 if resampler is None else resampler.latents,
        gate=(1, 1, text.hidden_size) if _GATES[kind] else (1,),
        eps=text.norm.eps,
        blind=True,
        views=Views(end=ends if isinstance(ends, int) else 2),
        names=replace(_CROSS_NAMES, q_norm=q_norm, k_norm=k_norm),
    )


def _tower(config: ConfigDict) -> TowerSpec:
    config = with_defaults(
        config,
        {
            "hidden_size": config.integer("embed_dim", default=768),
            "patch_size": 14,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "hidden_act": "gelu",
        },
    )
    return replace(clip_tower(config, "model.vision_model.", (-1,)), keeps_class=True)


def _resampler(config: ConfigDict) -> ResamplerProjector | None:
    if not config.flag("use_resampler", default=False):
        return None
    own = config.section("perceiver_config")
    return ResamplerProjector(
        latents=own.integer("resampler_n_latents", default=64),
        depth=own.integer("resampler_depth", default=6),
        heads=own.integer("resampler_n_heads", default=16),
        head_dim=own.integer("resampler_head_dim", default=96),
        normed=own.flag("qk_layer_norms_perceiver", default=False),
        prefix="model.perceiver_resampler.",
    )
