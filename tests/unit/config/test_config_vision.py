"""Configs of models that read images, as files of published models have them."""

import pytest

from text_generation_server.architectures.registry import read_spec
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.errors import UnsupportedModel
from text_generation_server.specs.activation import Activation
from text_generation_server.specs.decoder import HeadTie
from text_generation_server.specs.vision import Sight

CLIP_L = {
    "hidden_size": 1024, "image_size": 336, "intermediate_size": 4096, "model_type": "clip_vision_model",
    "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768,
}  # fmt: skip
MISTRAL = {
    "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mistral", "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "sliding_window": None, "vocab_size": 32064,
}  # fmt: skip
LLAVA = {
    "model_type": "llava_next", "projector_hidden_act": "gelu", "text_config": MISTRAL, "vision_config": CLIP_L,
    "vision_feature_layer": -2, "vision_feature_select_strategy": "default", "tie_word_embeddings": False,
}  # fmt: skip
SIGLIP = {
    "hidden_size": 1152, "intermediate_size": 4304, "model_type": "siglip_vision_model", "num_attention_heads": 16,
    "num_hidden_layers": 27, "patch_size": 14, "vision_use_head": False,
}  # fmt: skip
GEMMA3 = {
    "model_type": "gemma3", "mm_tokens_per_image": 256, "vision_config": {**SIGLIP, "image_size": 896},
    "text_config": {
        "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
    },
}  # fmt: skip
PALIGEMMA2 = {
    "model_type": "paligemma", "projection_dim": 2304, "vision_config": SIGLIP,
    "text_config": {
        "hidden_size": 2304, "intermediate_size": 9216, "model_type": "gemma2", "num_attention_heads": 8,
        "num_hidden_layers": 26, "num_key_value_heads": 4, "query_pre_attn_scalar": 256, "vocab_size": 257216,
        "use_bidirectional_attention": True,
    },
}  # fmt: skip


def spec_of(values, **changes):
    return read_spec(ConfigDict({**values, **changes}))


def test_llava_next_leaves_out_the_sizes_of_a_7b():
    spec = spec_of(LLAVA)
    attention = spec.attention
    assert (spec.hidden_size, spec.num_layers, attention.heads, attention.kv_heads) == (4096, 32, 32, 8)
    assert attention.windows == (None,) * 32 and spec.head.tie is HeadTie.SEPARATE
    tower = spec.vision.tower
    assert (tower.taken, tower.side, tower.activation) == ((23,), 24, Activation.GELU_SIGMOID)
    assert spec.names.head == "language_model.lm_head" and spec.names.layer == "language_model.model.layers.{}"
    vicuna = spec_of(LLAVA, text_config={"model_type": "llama", "vocab_size": 32064, "rms_norm_eps": 1e-5})
    assert (vicuna.mlp.inner_size, vicuna.attention.kv_heads) == (11008, 32)


def test_gemma_3_with_images_is_the_text_model_and_a_tower():
    spec = spec_of(GEMMA3)
    text = read_spec(ConfigDict(GEMMA3["text_config"]))
    assert (spec.attention, spec.max_positions.tokens) == (text.attention, 131072)
    assert spec.vision.sight is Sight.IMAGES and spec.vision.projector.pooled == 4
    assert spec.head.tie is HeadTie.IF_ABSENT


def test_paligemma_2_is_a_gemma_2_whose_prompts_see_all_of_themselves():
    spec = spec_of(PALIGEMMA2)
    assert (spec.attention.head_dim, spec.attention.softcap, spec.vision.sight) == (256, 50.0, Sight.PROMPTS)
    assert spec.vision.tower.side == 16


@pytest.mark.parametrize(
    ("values", "changes", "words"),
    [
        (LLAVA, {"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy is 'full'"),
        (LLAVA, {"vision_feature_layer": "last"}, "vision_feature_layer is 'last'"),
        (LLAVA, {"vision_feature_layer": [-2, 25]}, r"num_hidden_layers is 24.*\[-2, 25\]"),
        (LLAVA, {"text_config": {"model_type": "gpt2"}}, "text_config.model_type is 'gpt2'.*llama, mistral"),
        (GEMMA3, {"mm_tokens_per_image": 200}, "mm_tokens_per_image is 200"),
    ],
)
def test_what_is_refused(values, changes, words):
    with pytest.raises(UnsupportedModel, match=words):
        spec_of(values, **changes)
