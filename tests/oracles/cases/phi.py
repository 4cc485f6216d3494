"""Phi: parallel branches up to 2; from 3 on Mistral with fused projections."""

from oracles.case import LLAMA, SIZES, TOKENS, Case, rope

_PHI = {**TOKENS, **SIZES, "intermediate_size": 45}
_LONGROPE = {"short_factor": [1.0, 1.1, 1.3, 1.5], "long_factor": [1.5, 2.0, 3.0, 4.5]}
_LONGROPE_4_MINI = {name: factors[:3] for name, factors in _LONGROPE.items()}

CASES = (
    Case("phi", "Phi 1, 1.5, 2", "phi", _PHI, "parallel branches, half of each head rotated, a head with bias"),
    Case(
        "phi-grouped",
        "Phi 1, 1.5, 2",
        "phi",
        {**_PHI, "num_key_value_heads": 2, "tie_word_embeddings": True, **rope("default", partial_rotary_factor=0.75)},
        "grouped queries, a tied head with bias of its own",
    ),
    Case(
        "phi3",
        "Phi 3 mini 4k, medium 4k, Phi 4",
        "phi3",
        {**LLAMA, "num_key_value_heads": 4, "sliding_window": 6},
        "fused projections, a sliding window in every layer",
    ),
    Case(
        "phi3-longrope",
        "Phi 3 mini 128k, medium 128k, 3.5 mini, 4 mini",
        "phi3",
        {
            **LLAMA,
            "sliding_window": 256,
            "original_max_position_embeddings": 30,
            **rope("longrope", original_max_position_embeddings=30, **_LONGROPE),
        },
        "longrope scaling, short and long sequences in one batch, grouped queries",
    ),
    Case(
        "phi4-mini",
        "Phi 3 mini 128k, medium 128k, 3.5 mini, 4 mini",
        "phi3",
        {
            **LLAMA,
            "tie_word_embeddings": True,
            "original_max_position_embeddings": 30,
            **rope("longrope", original_max_position_embeddings=30, partial_rotary_factor=0.75, **_LONGROPE_4_MINI),
        },
        "longrope scaling on three quarters of each head, tied head",
    ),
)
