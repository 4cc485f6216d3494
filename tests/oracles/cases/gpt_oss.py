"""gpt-oss: sinks, experts with biases whose gates take turns with what they let through."""

from oracles.case import LLAMA, Case, rope

_ROW = "gpt-oss 20B, 120B"
_SIZES = {
    **LLAMA,
    **rope("yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=32.0, beta_slow=1.0, truncate=False),
    "head_dim": 12,
    "sliding_window": 6,
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
    "experts_implementation": "eager",
}

CASES = (
    Case("gpt_oss", _ROW, "gpt_oss", _SIZES, "yarn, the first layer slides, biases everywhere"),
    Case(
        "gpt_oss-full-first",
        _ROW,
        "gpt_oss",
        {
            **_SIZES,
            **rope("linear", factor=2.0),
            "layer_types": ["full_attention", "sliding_attention"],
            "attention_bias": False,
            "num_key_value_heads": 4,
        },
        "the first layer sees all keys, a key and a value of each head, no biases of attention",
    ),
)
