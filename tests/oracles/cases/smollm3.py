"""SmolLM3: Llama with layers that do not rotate."""

from oracles.case import LLAMA, Case

CASES = (
    Case(
        "smollm3",
        "SmolLM3",
        "smollm3",
        {**LLAMA, "num_hidden_layers": 4},
        "every fourth layer does not rotate, tied head",
    ),
    Case(
        "smollm3-window",
        "SmolLM3",
        "smollm3",
        {**LLAMA, "no_rope_layers": [0, 1], "use_sliding_window": True, "sliding_window": 6}
        | {"tie_word_embeddings": False},
        "a sliding window where a layer does not rotate, a head of its own",
    ),
)
