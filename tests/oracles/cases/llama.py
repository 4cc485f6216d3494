"""Llama, and rotary scalings, which are read alike for every family."""

from oracles.case import LLAMA, Case, rope

_LONGROPE = {"short_factor": [1.0, 1.1, 1.3, 1.5], "long_factor": [1.5, 2.0, 3.0, 4.5]}


def _llama(name: str, notes: str, row: str = "Llama 1 to 3.3, Yi 1.5, SmolLM", **config: object) -> Case:
    return Case(name, row, "llama", {**LLAMA, **config}, notes)


CASES = (
    _llama("llama", "grouped queries"),
    _llama(
        "llama-biases",
        "biases everywhere, head_dim apart from hidden_size, tied head",
        attention_bias=True,
        mlp_bias=True,
        head_dim=12,
        tie_word_embeddings=True,
    ),
    Case(
        "llama-linear",
        "Llama 1 to 3.3, Yi 1.5, SmolLM",
        "llama",
        {**LLAMA, **rope("linear", factor=3.0)},
        "linear rope scaling, sharded files",
        shards="20KB",
    ),
    _llama(
        "llama-3.1",
        "llama3 rope scaling",
        **rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64),
    ),
    _llama("llama-yarn", "yarn rope scaling", **rope("yarn", factor=4.0, original_max_position_embeddings=32)),
    _llama(
        "llama-yarn-mscale",
        "yarn rope scaling sharpened by two scales, its factor from the lengths",
        **rope("yarn", factor=None, original_max_position_embeddings=32, mscale=0.7, mscale_all_dim=1.2),
    ),
    _llama(
        "llama-dynamic",
        "dynamic rope scaling: prompts of 5 and 1 stay within the original context, others grow beyond it",
        max_position_embeddings=30,
        **rope("dynamic", factor=4.0),
    ),
    _llama(
        "llama-longrope",
        "longrope scaling, short and long sequences in one batch",
        original_max_position_embeddings=30,
        **rope("longrope", original_max_position_embeddings=30, **_LONGROPE),
    ),
)
