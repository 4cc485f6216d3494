"""StarCoder2: Mistral's attention with layer norms, a plain MLP and biases."""

from oracles.case import LLAMA, Case

CASES = (
    Case(
        "starcoder2",
        "StarCoder2",
        "starcoder2",
        {**LLAMA, "sliding_window": 6},
        "biases everywhere, a sliding window in every layer, tied head",
    ),
    Case(
        "starcoder2-unbiased",
        "StarCoder2",
        "starcoder2",
        {**LLAMA, "use_bias": False, "tie_word_embeddings": False},
        "no biases but those of norms, a head of its own",
    ),
)
