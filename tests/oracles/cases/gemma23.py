"""Gemma 2 and 3: norms around both branches, sliding layers between full ones."""

from oracles.case import LLAMA, SIZES, TOKENS, Case

_ROW2, _ROW3 = "Gemma 2", "Gemma 3 (text)"
_WINDOW = {"sliding_window": 6, "query_pre_attn_scalar": 11}
_KINDS = {"layer_types": ["sliding_attention", "full_attention"]}
_GEMMA3 = {
    **TOKENS,
    **SIZES,
    "num_hidden_layers": 4,
    "intermediate_size": 45,
    "num_key_value_heads": 1,
    "head_dim": 12,
    "query_pre_attn_scalar": 11,
    "sliding_window": 6,
}
_NEW_KEYS = {
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1000.0},
    },
}
_OLD_KEYS = {
    "sliding_window_pattern": 3,
    "rope_theta": 100000.0,
    "rope_local_base_freq": 1000.0,
    "rope_scaling": {"factor": 4.0, "rope_type": "linear"},
}


CASES = (
    Case(
        "gemma2",
        _ROW2,
        "gemma2",
        {**LLAMA, **_WINDOW, "head_dim": 12, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
        "norms around both branches, bounded scores and logits, own scale of scores, every other layer sliding",
        plain_norms=False,
    ),
    Case(
        "gemma2-unbounded",
        _ROW2,
        "gemma2",
        {
            **LLAMA,
            **_WINDOW,
            "layer_types": _KINDS["layer_types"][::-1],
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "attention_bias": True,
            "tie_word_embeddings": False,
        },
        "no bounds, biases, head of its own, the full layer first",
        plain_norms=False,
    ),
    Case(
        "gemma3",
        _ROW3,
        "gemma3_text",
        {**_GEMMA3, **_NEW_KEYS},
        "two rotations, one scaled; norms of heads; one key/value head",
        plain_norms=False,
    ),
    Case(
        "gemma3-old",
        _ROW3,
        "gemma3_text",
        {**_GEMMA3, **_NEW_KEYS},
        "the same in the keys of transformers 4",
        plain_norms=False,
        written={"model_type": "gemma3_text", **_GEMMA3, **_OLD_KEYS},
    ),
    Case(
        "gemma3-bounded",
        _ROW3,
        "gemma3_text",
        {**LLAMA, **_WINDOW, **_KINDS, "head_dim": 16, "final_logit_softcapping": 3.0},
        "bounded logits, grouped queries",
        plain_norms=False,
    ),
)
