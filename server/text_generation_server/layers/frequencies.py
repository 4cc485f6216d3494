"""The frequencies of rotary embeddings, however they are stretched to longer contexts. Knows no positions."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from text_generation_server.specs.rope import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongropeScaling,
    RopeSpec,
    YarnScaling,
)

Frequencies = Callable[[Tensor], Tensor]
"""From spans [T] to radians a position, in float32: [dim / 2], or [T, dim / 2] where they depend on the span.

A span is the length that a token's sequence may reach. It is known when the sequence starts, so that keys already
cached are never rotated otherwise than those that follow.
"""


def frequencies(spec: RopeSpec, device: torch.device) -> Frequencies:
    """The frequencies of a rotary embedding, computed on `device`."""
    exponents = torch.arange(0, spec.dim, 2).float() / spec.dim
    plain = 1.0 / spec.theta**exponents
    match spec.scaling:
        case DynamicScaling():
            return _dynamic(spec, spec.scaling, exponents.to(device))
        case LongropeScaling():
            return _longrope(plain, spec.scaling, device)
        case None:
            fixed = plain
        case LinearScaling(factor):
            fixed = plain / factor
        case Llama3Scaling():
            fixed = _llama3(plain, spec.scaling)
        case YarnScaling():
            fixed = _yarn(plain, spec, spec.scaling)
    fixed = fixed.to(device)
    return lambda _spans: fixed


def axial_frequencies(dim: int, theta: float, device: torch.device) -> Tensor:
    """[dim / 2] float32, of heads whose pairs turn half by one coordinate, half by another: twice the same."""
    half = 1.0 / theta ** (torch.arange(0, dim // 2, 2).float() / (dim // 2))
    return half.repeat(2).to(device)


def attention_factor(spec: RopeSpec) -> float:
    """What cos and sin are multiplied by."""
    return spec.scaling.attention_factor if isinstance(spec.scaling, YarnScaling | LongropeScaling) else 1.0


def _dynamic(spec: RopeSpec, scaling: DynamicScaling, exponents: Tensor) -> Frequencies:
    def of(spans: Tensor) -> Tensor:
        stretch = scaling.factor * spans.float() / scaling.original_max_positions - (scaling.factor - 1)
        theta = spec.theta * stretch.clamp(min=1.0) ** (spec.dim / (spec.dim - 2))
        return theta[:, None] ** -exponents

    return of


def _longrope(plain: Tensor, scaling: LongropeScaling, device: torch.device) -> Frequencies:
    factors = torch.tensor((scaling.short_factor, scaling.long_factor))
    short_and_long = (plain / factors).to(device)

    def of(spans: Tensor) -> Tensor:
        return short_and_long[(spans > scaling.original_max_positions).long()]

    return of


def _llama3(plain: Tensor, scaling: Llama3Scaling) -> Tensor:
    """Full turns within the original context decide: few of them → divided, many → kept."""
    turns = scaling.original_max_positions * plain / (2 * math.pi)
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = kept.clamp(0, 1)
    return plain * kept + plain / scaling.factor * (1 - kept)


def _yarn(plain: Tensor, spec: RopeSpec, scaling: YarnScaling) -> Tensor:
    """As `_llama3`, but the blend is linear in the dimension's number, as in the code of the method's authors."""
    low, high = (
        spec.dim * math.log(scaling.original_max_positions / (turns * 2 * math.pi)) / (2 * math.log(spec.theta))
        for turns in (scaling.beta_fast, scaling.beta_slow)
    )
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, spec.dim - 1)
    divided = (torch.arange(spec.dim // 2) - low) / max(high - low, 0.001)
    divided = divided.clamp(0, 1)
    return plain * (1 - divided) + plain / scaling.factor * divided
