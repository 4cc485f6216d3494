"""GPT-2, GPT-NeoX and BLOOM: fused projections, learned or no positions."""

from oracles.case import SIZES, TOKENS, Case, rope, without_prefix

_GPT2 = {**TOKENS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
_NEOX = {**TOKENS, **SIZES, "intermediate_size": 45}

CASES = (
    Case("gpt2", "GPT-2", "gpt2", _GPT2, "learned positions"),
    Case(
        "gpt2-hub",
        "GPT-2",
        "gpt2",
        {**_GPT2, "n_inner": 50, "scale_attn_by_inverse_layer_idx": True},
        "names without prefix, scores scaled by layer, own inner size",
        checkpoint=without_prefix("transformer."),
    ),
    Case(
        "gpt_neox",
        "GPT-NeoX, Pythia",
        "gpt_neox",
        {**_NEOX, **rope("default", partial_rotary_factor=0.5)},
        "parallel branches with two norms, partial rotary",
    ),
    Case(
        "gpt_neox-sequential",
        "GPT-NeoX, Pythia",
        "gpt_neox",
        {
            **_NEOX,
            "use_parallel_residual": False,
            "attention_bias": False,
            **rope("default", partial_rotary_factor=1.0),
        },
        "sequential branches, biases in the MLP only",
    ),
    Case(
        "bloom",
        "BLOOM, BLOOMZ",
        "bloom",
        {**TOKENS, "hidden_size": 48, "n_layer": 2, "n_head": 12},
        "linear biases with a head count that is no power of two, norm after the embedding",
        checkpoint=without_prefix("transformer."),
    ),
)
