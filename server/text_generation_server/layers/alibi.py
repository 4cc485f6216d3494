"""Slopes of linear attention biases (arXiv 2108.12409). Knows no attention kernel."""

import torch

from text_generation_server.specs.alibi import AlibiSpec


def alibi_slopes(heads: int) -> list[float]:
    """Each head's: 2^(−8i/p) for the largest power of two p ≤ heads, then every other one of the next power's."""
    power = 1 << (heads.bit_length() - 1)
    slopes = [2.0 ** (-8 * i / power) for i in range(1, power + 1)]
    return slopes + [2.0 ** (-4 * i / power) for i in range(1, 2 * (heads - power), 2)]


def spec_slopes(spec: AlibiSpec, heads: int, mine: range) -> tuple[float, ...]:
    """The slopes of a rank's heads, as numbers of the model's heads."""
    slopes = torch.tensor(alibi_slopes(heads))
    if spec.bf16_slopes:
        slopes = slopes.bfloat16().float()
    return tuple((slopes[mine.start : mine.stop] * spec.scale).tolist())
