"""Mistral: Llama with a sliding window."""

from oracles.case import LLAMA, Case

CASES = (
    Case("mistral", "Mistral 7B, Nemo", "mistral", {**LLAMA, "sliding_window": 7}, "a sliding window in every layer"),
    Case(
        "mistral-nemo",
        "Mistral 7B, Nemo",
        "mistral",
        {**LLAMA, "sliding_window": None, "head_dim": 12},
        "no window, head_dim apart from hidden_size",
    ),
    Case(
        "ministral",
        "Ministral 8B",
        "ministral",
        {**LLAMA, "head_dim": 12, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
        "a sliding window in the layers that `layer_types` names",
    ),
)
