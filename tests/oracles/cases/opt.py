"""OPT and Galactica: learned positions from the third row on, norms before or after branches."""

from oracles.case import SIZES, TOKENS, Case

_OPT = {**TOKENS, **SIZES, "ffn_dim": 45, "word_embed_proj_dim": 32}

CASES = (
    Case("opt", "OPT 125M to 66B", "opt", _OPT, "learned positions with an offset, tied head"),
    Case(
        "opt-untied",
        "OPT 125M to 66B",
        "opt",
        {**_OPT, "_remove_final_layer_norm": True, "tie_word_embeddings": False},
        "a head of its own, no final norm",
    ),
    Case(
        "opt-350m",
        "OPT 350M",
        "opt",
        {**_OPT, "do_layer_norm_before": False, "word_embed_proj_dim": 20},
        "norms after branches, narrow embeddings with projections in and out",
    ),
    Case(
        "galactica",
        "Galactica",
        "opt",
        {**_OPT, "activation_function": "gelu", "enable_bias": False},
        "another activation, no biases but those of norms",
    ),
    Case(
        "galactica-plain-norms",
        "Galactica",
        "opt",
        {**_OPT, "activation_function": "gelu", "enable_bias": False, "layer_norm_elementwise_affine": False},
        "norms without any tensors",
    ),
)
