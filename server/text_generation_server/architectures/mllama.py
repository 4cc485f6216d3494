"""Llama 3.2 Vision: a Llama with gated layers that attend to an image's tiles. Checked against transformers 5.24.

Traps: `num_hidden_layers` counts the layers that attend to images too, which have no keys and values of tokens. The
table of embeddings has eight rows behind the vocabulary, one of them the image's, which the head does not have. A token
before all images is left as it is by those layers, as in Meta's own code: transformers masks their MLP only, and adds
what the token finds in all images together. `intermediate_layers_indices` are of layers whose inputs are taken, as in
Meta's code, and in transformers before 4.54; 5.24 takes their outputs.
"""

from dataclasses import replace

from text_generation_server.architectures.llama import llama
from text_generation_server.architectures.text_part import TextPart, text_part, with_defaults
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.crossing import CrossNames, CrossSpec, Views
from text_generation_server.specs.decoder import DecoderSpec, HeadTie
from text_generation_server.specs.vision import TiledTowerNames, TiledVisionSpec

ROWS_BEHIND = 8
"""Of the table of embeddings, behind the vocabulary."""

TEXTS = {
    "mllama_text_model": TextPart(
        llama,
        {
            "vocab_size": 128256,
            "hidden_size": 4096,
            "num_hidden_layers": 40,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "intermediate_size": 14336,
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 131072,
            "rope_theta": 500000.0,
        },
    )
}
_CROSS_NAMES = CrossNames(
    attention_norm="input_layernorm",
    attention=("cross_attn.q_proj", "cross_attn.k_proj", "cross_attn.v_proj", "cross_attn.o_proj"),
    attention_gate="cross_attn_attn_gate",
    mlp_norm="post_attention_layernorm",
    up=("mlp.gate_proj", "mlp.up_proj"),
    down="mlp.down_proj",
    mlp_gate="cross_attn_mlp_gate",
    q_norm="cross_attn.q_norm",
    k_norm="cross_attn.k_norm",
)
_TOWER = {
    "hidden_size": 1280, "num_hidden_layers": 32, "num_global_layers": 8, "image_size": 448, "patch_size": 14,
    "intermediate_size": 5120, "intermediate_layers_indices": [3, 7, 15, 23, 30],
    "supported_aspect_ratios": [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]],
}  # fmt: skip
_TOWER_NAMES = TiledTowerNames(
    patches="vision_model.patch_embedding",
    class_token="vision_model.class_embedding",
    before_tiles="vision_model.pre_tile_positional_embedding",
    places="vision_model.gated_positional_embedding",
    before="vision_model.layernorm_pre",
    layer="vision_model.transformer.layers.{}",
    after="vision_model.layernorm_post",
    after_tiles="vision_model.post_tile_positional_embedding",
    global_layer="vision_model.global_transformer.layers.{}",
    projector="multi_modal_projector",
)


ALIASES = (
    ("language_model.model.", "model.language_model."),
    ("language_model.lm_head.", "lm_head."),
    ("vision_model.", "model.vision_model."),
    ("multi_modal_projector.", "model.multi_modal_projector."),
)
"""As in `architectures/text_part.py`."""


def mllama(config: ConfigDict) -> DecoderSpec:
    """The spec of a Llama 3.2 Vision."""
    text = text_part(config, TEXTS, usual="mllama_text_model")
    inside = with_defaults(config.section("text_config"), {"cross_attention_layers": [*range(3, 40, 5)]})
    listed = inside.numbers("cross_attention_layers")
    vision = _vision(with_defaults(config.section("vision_config"), _TOWER))
    names = text.names.within("language_model.model.", "language_model.lm_head")
    crossing = CrossSpec(
        layers=tuple((int(layer), names.layer.format(int(layer)) + ".") for layer in sorted(listed)),
        instead=True,
        heads=text.attention.heads,
        kv_heads=text.attention.kv_heads,
        head_dim=text.attention.head_dim,
        width=text.hidden_size,
        features=vision.most_tiles * vision.tokens,
        gate=(1,),
        eps=text.norm.eps,
        blind=False,
        views=Views(beside=True),
        names=_CROSS_NAMES,
    )
    head = replace(text.head, tie=HeadTie.SEPARATE, unchosen=ROWS_BEHIND)
    return replace(
        text,
        vocab_size=text.vocab_size + ROWS_BEHIND,
        names=replace(names, aliases=ALIASES),
        head=head,
        vision=vision,
        crossing=crossing,
    )


def _vision(config: ConfigDict) -> TiledVisionSpec:
    shapes = config.get("supported_aspect_ratios")
    if not isinstance(shapes, list) or not all(isinstance(one, list) and len(one) == 2 for one in shapes):
        raise config.refusal("supported_aspect_ratios", shapes, "pairs of numbers of tiles")
    taken = config.numbers("intermediate_layers_indices")
    return TiledVisionSpec(
        hidden_size=config.integer("hidden_size"),
        layers=config.integer("num_hidden_layers"),
        global_layers=config.integer("num_global_layers"),
        heads=config.integer("attention_heads", "num_attention_heads", default=16),
        image_size=config.integer("image_size"),
        patch_size=config.integer("patch_size"),
        channels=config.integer("num_channels", default=3),
        inner_size=config.integer("intermediate_size"),
        activation=config.activation("hidden_act", default="gelu"),
        eps=config.number("norm_eps", default=1e-5),
        shapes=tuple((rows, columns) for rows, columns in shapes),
        most_tiles=config.integer("max_num_tiles", default=4),
        taken=tuple(int(layer) for layer in taken),
        names=_TOWER_NAMES,
    )
