"""OLMo 1: norms without weights, bounded queries, keys and values."""

from oracles.case import LLAMA, Case

CASES = (
    Case("olmo", "OLMo 1B, 7B", "olmo", {**LLAMA, "clip_qkv": 0.4}, "norms without weights; values that are bounded"),
)
