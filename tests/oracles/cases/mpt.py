"""MPT: linear biases, no other biases."""

from oracles.case import TOKENS, Case

_MPT = {**TOKENS, "d_model": 48, "n_layers": 2, "n_heads": 12, "max_seq_len": 128}

CASES = (
    Case("mpt", "MPT 7B, 30B", "mpt", _MPT, "linear biases with a head count that is no power of two, tied head"),
    Case(
        "mpt-storywriter",
        "MPT 7B, 30B",
        "mpt",
        {**_MPT, "n_heads": 4, "attn_config": {"clip_qkv": 0.7, "softmax_scale": 0.5}, "tie_word_embeddings": False},
        "clipped queries, keys and values, a scale of its own, a head of its own",
    ),
)
