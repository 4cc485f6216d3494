"""Hybrids: layers with Mamba 2's recurrence, and others with attention."""

from oracles.case import LLAMA, Case

_SIZES = {**LLAMA, "num_hidden_layers": 3, "mamba_n_heads": 8, "mamba_d_state": 5, "mamba_chunk_size": 8}
_GRANITE = {
    **_SIZES,
    "shared_intermediate_size": 45,
    "num_local_experts": 0,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "embedding_multiplier": 3.0,
    "logits_scaling": 2.0,
    "residual_multiplier": 0.7,
    "attention_multiplier": 0.4,
}
_DENSE, _SPARSE = "Granite 4.0 H 350M, 1B, micro", "Granite 4.0 H tiny, small"

CASES = (
    Case("granite-hybrid", _DENSE, "granitemoehybrid", _GRANITE, "no positions, all multipliers", shares=False),
    Case(
        "granite-hybrid-rotary",
        _DENSE,
        "granitemoehybrid",
        {
            **_GRANITE,
            "position_embedding_type": "rope",
            "layer_types": ["full_attention", "linear_attention", "full_attention"],
            "mamba_n_groups": 4,
            "mamba_conv_bias": False,
            "mamba_proj_bias": True,
            "attention_bias": True,
            "tie_word_embeddings": True,
        },
        "rotary positions, four groups of heads, biases, tied head",
        shares=False,
    ),
    Case(
        "granite-hybrid-experts",
        _SPARSE,
        "granitemoehybrid",
        {
            **_GRANITE,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "intermediate_size": 21,
            "experts_implementation": "eager",
        },
        "experts in one tensor, beside an MLP for all tokens",
        shares=False,
    ),
    Case(
        "bamba",
        "Bamba 9B",
        "bamba",
        {**_SIZES, "attn_layer_indices": [1]},
        "half of each head rotates in the layer with attention",
        shares=False,
    ),
)
