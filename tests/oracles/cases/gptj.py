"""GPT-J: parallel branches with one norm, neighbours rotated, a head with bias."""

from oracles.case import TOKENS, Case

_GPTJ = {**TOKENS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}

CASES = (
    Case("gptj", "GPT-J", "gptj", {**_GPTJ, "rotary_dim": 6, "n_inner": 45}, "a part of each head rotated"),
    Case("gptj-whole", "GPT-J", "gptj", {**_GPTJ, "rotary_dim": 8}, "whole heads rotated, default inner size"),
)
