"""What a rotary embedding is, and its frequencies however it is stretched to longer contexts. Knows no positions."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class LinearScaling:
    """Positions divided by `factor`."""

    factor: float


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """Long wavelengths divided by `factor`, short ones kept, a blend between (Llama 3.1)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int


@dataclass(frozen=True, slots=True)
class YarnScaling:
    """A ramp from interpolated to kept frequencies, and sharper attention (arXiv 2309.00071)."""

    factor: float
    original_max_positions: int
    beta_fast: float
    beta_slow: float
    attention_factor: float
    truncate: bool


RopeScaling = LinearScaling | Llama3Scaling | YarnScaling


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary embedding of the first `dim` numbers of each head, pairing (i, i + dim/2) (arXiv 2104.09864)."""

    dim: int
    theta: float
    scaling: RopeScaling | None = None


def inverse_frequencies(spec: RopeSpec) -> Tensor:
    """Radians a position [dim / 2], in float32."""
    plain = 1.0 / spec.theta ** (torch.arange(0, spec.dim, 2).float() / spec.dim)
    match spec.scaling:
        case None:
            return plain
        case LinearScaling(factor):
            return plain / factor
        case Llama3Scaling():
            return _llama3(plain, spec.scaling)
        case YarnScaling():
            return _yarn(plain, spec, spec.scaling)


def attention_factor(spec: RopeSpec) -> float:
    """What cos and sin are multiplied by."""
    return spec.scaling.attention_factor if isinstance(spec.scaling, YarnScaling) else 1.0


def _llama3(plain: Tensor, scaling: Llama3Scaling) -> Tensor:
    """Full turns within the original context decide: few of them → divided, many → kept."""
    turns = scaling.original_max_positions * plain / (2 * math.pi)
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = kept.clamp(0, 1)
    return plain * kept + plain / scaling.factor * (1 - kept)


def _yarn(plain: Tensor, spec: RopeSpec, scaling: YarnScaling) -> Tensor:
    """As `_llama3`, but the blend is linear in the dimension's number (§3.2 of the paper)."""
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
