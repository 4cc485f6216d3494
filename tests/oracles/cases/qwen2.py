"""Qwen 1.5 to 2.5: Llama with biases on queries, keys and values."""

from oracles.case import LLAMA, Case

_KINDS = ["sliding_attention", "full_attention"]
_WINDOW = {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1, "tie_word_embeddings": True}

CASES = (
    Case("qwen2", "Qwen 1.5, 2, 2.5", "qwen2", LLAMA, "biases on queries, keys and values"),
    Case(
        "qwen2-window", "Qwen 1.5, 2, 2.5", "qwen2", {**LLAMA, **_WINDOW}, "a sliding window in the later layers only"
    ),
    Case(
        "qwen2-layers",
        "Qwen 1.5, 2, 2.5",
        "qwen2",
        {**LLAMA, **_WINDOW, "layer_types": _KINDS},
        "a sliding window in the layers that `layer_types` names",
    ),
)
