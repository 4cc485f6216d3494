"""OLMo 2: norms of branches' outputs, and of all queries and all keys together."""

from oracles.case import LLAMA, Case

CASES = (
    Case("olmo2", "OLMo 2", "olmo2", LLAMA, "norms over heads of all ranks, grouped queries"),
    Case(
        "olmo2-biases",
        "OLMo 2",
        "olmo2",
        {**LLAMA, "num_key_value_heads": 4, "attention_bias": True, "tie_word_embeddings": True},
        "biases before the norms, a key and a value of each head, tied head",
    ),
)
