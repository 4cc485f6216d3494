"""Mamba 1 and 2 and Falcon Mamba: states of a fixed size instead of keys and values."""

from oracles.case import TOKENS, Case

_SIZES = {**TOKENS, "hidden_size": 30, "num_hidden_layers": 2, "state_size": 5, "time_step_rank": 3}
"""Neither two nor four ranks divide the 60 or 90 channels evenly into multiples of anything."""


def _mamba(name: str, notes: str, model_type: str = "mamba", **config: object) -> Case:
    row = {"mamba": "Mamba 130M to 2.8B (-hf)", "falcon_mamba": "Falcon Mamba 7B"}[model_type]
    return Case(name, row, model_type, {**_SIZES, **config}, notes, shares=False)


_HEADS = {**TOKENS, "hidden_size": 28, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 7, "state_size": 5}


def _mamba2(name: str, notes: str, **config: object) -> Case:
    row = "Mamba 2 130M to 2.7B (-hf), Codestral Mamba"
    return Case(name, row, "mamba2", {**_HEADS, "chunk_size": 8, **config}, notes, shares=False)


CASES = (
    _mamba("mamba", "tied head, a bias of the convolution"),
    _mamba(
        "mamba-biases",
        "biases of projections, none of the convolution; head of its own, three inputs a convolution, automatic rank",
        use_bias=True,
        use_conv_bias=False,
        conv_kernel=3,
        expand=3,
        time_step_rank="auto",
        tie_word_embeddings=False,
    ),
    _mamba(
        "falcon_mamba",
        "norms of time steps, B and C",
        "falcon_mamba",
        tie_word_embeddings=False,
        residual_in_fp32=False,
    ),
    _mamba2("mamba2", "one group of heads, whose norm ranks share; tied head", n_groups=1, tie_word_embeddings=True),
    _mamba2(
        "mamba2-groups",
        "a group for each two heads, biases of projections, none of the convolution, three inputs of it, bounded steps",
        n_groups=4,
        use_bias=True,
        use_conv_bias=False,
        conv_kernel=3,
        residual_in_fp32=False,
        time_step_limit=[0.3, 1.0],
    ),
)
