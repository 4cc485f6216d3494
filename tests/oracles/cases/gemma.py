"""Gemma 1: offset norms, scaled embeddings."""

from oracles.case import LLAMA, Case

CASES = (
    Case(
        "gemma",
        "Gemma",
        "gemma",
        {**LLAMA, "num_key_value_heads": 1, "head_dim": 16},
        "one key/value head, copied to every rank; wide heads",
        plain_norms=False,
    ),
)
