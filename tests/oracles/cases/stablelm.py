"""StableLM: Llama with layer norms; 12B with parallel branches and norms of heads."""

from oracles.case import LLAMA, Case, rope

CASES = (
    Case(
        "stablelm",
        "StableLM 3B, StableLM 2 1.6B",
        "stablelm",
        {**LLAMA, "num_key_value_heads": 4, "use_qkv_bias": True, **rope("default", partial_rotary_factor=0.5)},
        "layer norms, biases on queries, keys and values, partial rotary",
    ),
    Case(
        "stablelm-12b",
        "StableLM 2 12B",
        "stablelm",
        {**LLAMA, "use_parallel_residual": True, "qk_layernorm": True},
        "parallel branches with one norm, a norm of its own for each head of queries and keys",
    ),
)
