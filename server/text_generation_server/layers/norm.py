"""Norms, fused with the addition to the residual stream that comes before each of them. Knows no wiring."""

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor


class Norm(Protocol):
    """Normalises the last dimension."""

    def __call__(self, x: Tensor) -> Tensor:
        """[T, hidden] to the same shape."""


class LayerNorm:
    """(x − mean) / sqrt(var + eps) · weight + bias (arXiv 1607.06450)."""

    def __init__(self, weight: Tensor, bias: Tensor | None, eps: float) -> None:
        self._weight = weight
        self._bias = bias
        self._eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        """[T, hidden] to the same shape."""
        return F.layer_norm(x, self._weight.shape, self._weight, self._bias, self._eps)


class RmsNorm:
    """x / sqrt(mean(x²) + eps), rounded to the type of x before the weight multiplies it (arXiv 1910.07467)."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        self._weight = weight
        self._eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        """[T, hidden] to the same shape."""
        return F.rms_norm(x, self._weight.shape, eps=self._eps).mul_(self._weight)


class OffsetRmsNorm:
    """x / sqrt(mean(x²) + eps) · (offset + weight), all in float32, rounded once at the end (Gemma)."""

    def __init__(self, weight: Tensor, eps: float, offset: float) -> None:
        self._weight = weight.float() + offset
        self._eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        """[T, hidden] to the same shape."""
        return F.rms_norm(x.float(), self._weight.shape, self._weight, self._eps).to(x.dtype)


def add_norm(norm: Norm, delta: Tensor, residual: Tensor) -> Tensor:
    """Add a branch's output to the residual stream, in place, and normalise the sum."""
    return norm(residual.add_(delta))
