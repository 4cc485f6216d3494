"""Falcon: four block structures under one model_type."""

from oracles.case import SIZES, TOKENS, Case


def _falcon(name: str, row: str, notes: str, **config: object) -> Case:
    # Eager attention of transformers 5.23 adds Falcon's linear biases twice: once in the mask, once in the layer.
    return Case(name, row, "falcon", {**TOKENS, **SIZES, **config}, notes, attention="sdpa")


CASES = (
    _falcon(
        "falcon-7b",
        "Falcon 7B",
        "parallel branches with one norm, one key/value head",
        multi_query=True,
        parallel_attn=True,
    ),
    _falcon(
        "falcon-40b",
        "Falcon 40B, 180B",
        "new decoder: parallel branches with two norms, grouped queries",
        new_decoder_architecture=True,
        num_kv_heads=2,
    ),
    _falcon(
        "falcon-11b",
        "Falcon 11B",
        "new decoder with one norm",
        new_decoder_architecture=True,
        num_kv_heads=2,
        num_ln_in_parallel_attn=1,
    ),
    _falcon(
        "falcon-rw",
        "Falcon RW 1B, 7B",
        "linear biases on unscaled scores, sequential branches, biases",
        alibi=True,
        bias=True,
        multi_query=False,
        parallel_attn=False,
    ),
)
