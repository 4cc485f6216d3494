"""Models without an architecture here, which run through transformers' code: some that must, some that must not."""

from oracles.case import LLAMA, TOKENS, Case

_ROW = "any other decoder"
_CODEGEN = {**TOKENS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "rotary_dim": 8}

SERVED = (
    Case("nemotron", _ROW, "nemotron", LLAMA, "squared activation, partial rotary, norms of 1 + weight"),
    Case(
        "exaone4",
        _ROW,
        "exaone4",
        {**LLAMA, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
        "windows in some layers, norms of queries and keys",
    ),
    Case("ernie4_5", _ROW, "ernie4_5", {**LLAMA, "head_dim": 8}, "interleaved rotary"),
    Case("helium", _ROW, "helium", {**LLAMA, "head_dim": 8}, "interleaved rotary"),
    Case(
        "phimoe",
        _ROW,
        "phimoe",
        {**LLAMA, "intermediate_size": 48, "num_local_experts": 4, "experts_implementation": "eager"},
        "experts, a head with a bias",
    ),
    Case("codegen", _ROW, "codegen", _CODEGEN, "a cut projection; transformers 5.24 or newer"),
)

REFUSED = {
    "jamba": (
        {**LLAMA, "intermediate_size": 48, "attn_layer_period": 2, "attn_layer_offset": 1},
        "called for layers \\[1\\], of 2",
    ),
    "gpt_neo": (
        {**TOKENS, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global"], 2]]},
        "does not take another attention",
    ),
    "deepseek_v2": (
        {**LLAMA, "num_key_value_heads": 4, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_nope_head_dim": 8}
        | {"qk_rope_head_dim": 8, "v_head_dim": 8, "first_k_dense_replace": 2, "n_routed_experts": 4},
        "keys have 16 numbers a head and values 8",
    ),
    "lfm2": ({**LLAMA, "layer_types": ["conv", "full_attention"]}, "called for layers \\[1\\], of 2"),
    "t5gemma": ({**TOKENS}, "encoder"),
    "bert": ({**LLAMA}, "neither causal nor the sliding window"),
    "llama4_text": ({**LLAMA, "head_dim": 8, "num_local_experts": 4}, "neither causal nor the sliding window"),
    "roberta": ({**LLAMA, "is_decoder": True}, "answered differently than alone"),
}
"""model_type to its config and what the refusal says."""

WRITTEN_FOR = "5.24"
"""The transformers whose code these lists are about: another may serve what is refused here, rightly."""
