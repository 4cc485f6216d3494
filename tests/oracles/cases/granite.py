"""Granite: Llama with multipliers of embeddings, scores, branches and logits."""

from oracles.case import LLAMA, Case

_MULTIPLIERS = {
    "attention_multiplier": 0.2,
    "embedding_multiplier": 3.0,
    "logits_scaling": 4.0,
    "residual_multiplier": 0.22,
}

CASES = (
    Case(
        "granite",
        "Granite 3.0 to 3.3",
        "granite",
        {**LLAMA, **_MULTIPLIERS, "tie_word_embeddings": True},
        "all multipliers, tied head",
    ),
    Case(
        "granite-biases",
        "Granite 3.0 to 3.3",
        "granite",
        {**LLAMA, "attention_bias": True, "mlp_bias": True},
        "multipliers of 1, also for scores; biases everywhere",
    ),
)
