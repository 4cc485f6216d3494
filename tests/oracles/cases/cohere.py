"""Cohere: parallel branches, layer norms without bias; in the second generation windows and layers without rotation."""

from oracles.case import LLAMA, Case

_KINDS = ["sliding_attention", "full_attention"]


def _cohere(name: str, row: str, notes: str, model_type: str = "cohere", **config: object) -> Case:
    return Case(name, row, model_type, {**LLAMA, "logit_scale": 0.25, **config}, notes)


CASES = (
    _cohere("cohere", "Command-R, Aya", "interleaved rotary, scaled logits, tied head"),
    _cohere(
        "cohere-biases",
        "Command-R, Aya",
        "biases, head of its own",
        attention_bias=True,
        tie_word_embeddings=False,
    ),
    _cohere(
        "cohere-qk-norm",
        "Command-R+",
        "norms of query and key heads, each with weights of its own",
        use_qk_norm=True,
        layer_norm_eps=0.01,
    ),
    _cohere(
        "cohere2",
        "Command-R7B, Command A",
        "a sliding layer with rotary positions, a full one without",
        model_type="cohere2",
        sliding_window=6,
        layer_types=_KINDS,
    ),
    _cohere(
        "cohere2-full-first",
        "Command-R7B, Command A",
        "the same, the other way round",
        model_type="cohere2",
        sliding_window=9,
        layer_types=_KINDS[::-1],
    ),
)
