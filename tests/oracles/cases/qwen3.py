"""Qwen 3: Qwen 2 with norms of query and key heads, and no biases."""

from oracles.case import LLAMA, Case

_QWEN3 = {**LLAMA, "head_dim": 12}
_KINDS = ["sliding_attention", "full_attention"]
_WINDOW = {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}

CASES = (
    Case("qwen3", "Qwen 3", "qwen3", _QWEN3, "norms of query and key heads, head_dim apart from hidden_size"),
    Case(
        "qwen3-biases",
        "Qwen 3",
        "qwen3",
        {**_QWEN3, **_WINDOW, "attention_bias": True, "tie_word_embeddings": True},
        "biases, a sliding window in the later layers only, tied head",
    ),
    Case(
        "qwen3-layers",
        "Qwen 3",
        "qwen3",
        {**_QWEN3, **_WINDOW, "layer_types": _KINDS},
        "a sliding window in the layers that `layer_types` names",
    ),
)
