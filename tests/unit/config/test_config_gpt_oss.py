"""gpt-oss: what its published config.json says, what is so where no key says it, and what is refused."""

import pytest

from text_generation_server.architectures.registry import read_spec
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.errors import UnsupportedModel
from text_generation_server.specs.rope import YarnScaling

PUBLISHED = {
    "model_type": "gpt_oss", "attention_bias": True, "experts_per_token": 4, "head_dim": 64, "hidden_act": "silu",
    "hidden_size": 2880, "initial_context_length": 4096, "intermediate_size": 2880, "max_position_embeddings": 131072,
    "layer_types": ["sliding_attention", "full_attention"] * 12, "num_attention_heads": 64, "num_experts_per_tok": 4,
    "num_hidden_layers": 24, "num_key_value_heads": 8, "num_local_experts": 32, "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096,
        "rope_type": "yarn", "truncate": False,
    },
    "rope_theta": 150000, "sliding_window": 128, "swiglu_limit": 7.0, "tie_word_embeddings": False,
    "vocab_size": 201088,
}  # fmt: skip
ASSUMED = ("attention_bias", "head_dim", "layer_types", "rms_norm_eps", "rope_scaling", "rope_theta", "sliding_window")


def test_the_published_config():
    spec = read_spec(ConfigDict(PUBLISHED))
    attention, moe = spec.attention, spec.moe
    assert attention.windows == (128, None) * 12 and attention.sinks
    assert attention.qkv_bias and attention.out_bias and attention.head_dim == 64
    assert attention.rope.theta == 150000 and isinstance(attention.rope.scaling, YarnScaling)
    assert attention.rope.scaling.attention_factor == pytest.approx(1.3465736)
    assert spec.max_positions.tokens == 131072
    assert (moe.experts, moe.top_k, moe.inner_size, moe.bias, moe.router_bias) == (32, 4, 2880, True, True)


def test_what_no_key_says_is_as_published():
    assert read_spec(ConfigDict({k: v for k, v in PUBLISHED.items() if k not in ASSUMED})) == read_spec(
        ConfigDict(PUBLISHED)
    )


@pytest.mark.parametrize(("key", "value"), [("swiglu_limit", 3.0), ("swiglu_alpha", 1.0)])
def test_another_activation_is_refused(key, value):
    with pytest.raises(UnsupportedModel, match=f"{key} is {value}"):
        read_spec(ConfigDict({**PUBLISHED, key: value}))
