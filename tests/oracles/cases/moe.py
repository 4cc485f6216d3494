"""Mixtures of experts: Mixtral, Qwen with experts, DBRX. Inner sizes of experts that no number of ranks divides."""

from oracles.case import LLAMA, TOKENS, Case, rope

# transformers' grouped product of experts takes no odd sizes; its loop over experts does.
_LOOP = {"experts_implementation": "eager"}
_QWEN = {**LLAMA, **_LOOP, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 19}
_QWEN2 = {**_QWEN, "shared_expert_intermediate_size": 27}
_QWEN3 = {**_QWEN, "head_dim": 12}
_MIXTRAL = {**LLAMA, **_LOOP, "intermediate_size": 27, "num_local_experts": 4, "num_experts_per_tok": 2}


def _dbrx(name: str, notes: str, clip: float, order: float) -> Case:
    # transformers 5.23 rotates by rope_parameters, whatever attn_config says.
    config = {
        **TOKENS,
        **rope("default", rope_theta=500000.0),
        "d_model": 32,
        "n_heads": 4,
        "n_layers": 2,
        "max_seq_len": 128,
        "attn_config": {"kv_n_heads": 2, "clip_qkv": clip, "rope_theta": 500000.0},
        "ffn_config": {
            "ffn_hidden_size": 19,
            "moe_num_experts": 5,
            "moe_top_k": 3,
            "moe_normalize_expert_weights": order,
        },
    }
    return Case(name, "DBRX", "dbrx", config, notes)


CASES = (
    Case("mixtral", "Mixtral 8x7B, 8x22B", "mixtral", _MIXTRAL, "experts, theta by default"),
    Case(
        "mixtral-window",
        "Mixtral 8x7B, 8x22B",
        "mixtral",
        {**_MIXTRAL, **rope("default"), "sliding_window": 6, "head_dim": 12},
        "a sliding window in every layer, head_dim apart from hidden_size",
    ),
    Case(
        "qwen2_moe",
        "Qwen 1.5 MoE, Qwen 2 57B-A14B",
        "qwen2_moe",
        _QWEN2,
        "an expert for all tokens behind a gate, weights of the others that do not sum to one",
    ),
    Case(
        "qwen2_moe-dense",
        "Qwen 1.5 MoE, Qwen 2 57B-A14B",
        "qwen2_moe",
        {**_QWEN2, "decoder_sparse_step": 2, "qkv_bias": False, "norm_topk_prob": True, "tie_word_embeddings": True},
        "a dense layer before the sparse one, no biases, tied head",
    ),
    Case(
        "qwen2_moe-window",
        "Qwen 1.5 MoE, Qwen 2 57B-A14B",
        "qwen2_moe",
        {**_QWEN2, "num_hidden_layers": 3, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2},
        "a sliding window in every other of the first layers",
    ),
    Case(
        "qwen3_moe-window",
        "Qwen 3 30B-A3B, 235B-A22B",
        "qwen3_moe",
        {**_QWEN3, "use_sliding_window": True, "sliding_window": 6},
        "a sliding window in every layer",
    ),
    Case(
        "qwen3_moe",
        "Qwen 3 30B-A3B, 235B-A22B",
        "qwen3_moe",
        {**_QWEN3, "norm_topk_prob": True},
        "norms of query and key heads, weights that sum to one",
    ),
    Case(
        "qwen3_moe-dense",
        "Qwen 3 30B-A3B, 235B-A22B",
        "qwen3_moe",
        {**_QWEN3, "mlp_only_layers": [1], "attention_bias": True},
        "a dense layer after the sparse one, biases, weights that do not sum to one",
    ),
    _dbrx("dbrx", "stacked experts, bounded queries, keys and values", 1.5, 1.0),
    _dbrx("dbrx-euclidean", "weights divided by their Euclidean norm", 6.0, 2.0),
)
