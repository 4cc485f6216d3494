"""T5 and its kin: an encoder, and a decoder that attends to what it read."""

from oracles.case import VOCAB_SIZE, Case

_SIZES = {"vocab_size": VOCAB_SIZE, "d_model": 24, "d_kv": 7, "d_ff": 45, "num_layers": 2, "num_heads": 4}


def _t5(name: str, row: str, notes: str, model_type: str = "t5", **config: object) -> Case:
    return Case(name, row, model_type, {**_SIZES, **config}, notes, shares=False, tolerance=3e-4)


CASES = (
    _t5(
        "t5",
        "T5",
        "a tied head of scaled inputs, a plain MLP",
        num_layers=3,
    ),
    _t5(
        "flan-t5",
        "T5 1.1, Flan-T5",
        "gates, a head of its own, a decoder of another depth, distances beyond the last bucket",
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        num_decoder_layers=3,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=12,
    ),
    _t5("mt5", "mT5", "gates, inputs of the head that are not scaled", "mt5"),
)
