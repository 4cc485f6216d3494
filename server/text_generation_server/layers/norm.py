"""Norms, fused with the addition to the residual stream that comes before each of them. Knows no wiring."""

from abc import ABC, abstractmethod
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

FEW_TOKENS = 16
"""Up to so many tokens the number of operators counts for more than what they compute."""


class Norm(Protocol):
    """Normalises the last dimension."""

    def __call__(self, x: Tensor) -> Tensor:
        """[T, hidden] to the same shape."""

    def of_sum(self, delta: Tensor, residual: Tensor) -> Tensor:
        """Add a branch's output to the residual stream, in place, and normalise the sum; [T, hidden] each."""


class Unfused(ABC):
    """A norm after an addition of its own."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """[T, hidden] to the same shape."""

    def of_sum(self, delta: Tensor, residual: Tensor) -> Tensor:
        """See `Norm`."""
        return self(residual.add_(delta))


class Identity(Unfused):
    """No norm, where a wiring has none."""

    def __call__(self, x: Tensor) -> Tensor:
        """x itself."""
        return x


class Scale(Unfused):
    """Multiplies, in place: a branch's output where a wiring could have a norm."""

    def __init__(self, factor: float) -> None:
        self._factor = factor

    def __call__(self, x: Tensor) -> Tensor:
        """x, multiplied."""
        return x.mul_(self._factor)


class LayerNorm(Unfused):
    """(x − mean) / sqrt(var + eps) · weight + bias (arXiv 1607.06450), with or without the last two."""

    def __init__(self, weight: Tensor | None, bias: Tensor | None, eps: float) -> None:
        self._weight = weight
        self._bias = bias
        self._eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        """[T, hidden] to the same shape."""
        return F.layer_norm(x, x.shape[-1:], self._weight, self._bias, self._eps)


class RmsNorm(Unfused):
    """x / sqrt(mean(x²) + eps) · weight (arXiv 1910.07467).

    On a CPU torch's own takes ten operators, as much of a small model's decode step as its attention. For few tokens
    two do the same: x beside −x has mean 0 and variance mean(x²), so that its layer norm is the wanted norm of x.
    """

    def __init__(self, weight: Tensor, eps: float) -> None:
        self._weight = weight
        self._eps = eps
        self._weight_twice = torch.cat((weight, weight))
        self._signs = weight.new_tensor([[1.0], [-1.0]])
        self._few_tokens = FEW_TOKENS if weight.device.type == "cpu" else 0

    def __call__(self, x: Tensor) -> Tensor:
        """[T, hidden] to the same shape."""
        if x.shape[0] > self._few_tokens:
            return F.rms_norm(x, self._weight.shape, self._weight, self._eps)
        mirrored = (x[:, None] * self._signs).flatten(1)
        normed = F.layer_norm(mirrored, self._weight_twice.shape, self._weight_twice, None, self._eps)
        return normed[:, : x.shape[1]]


class OffsetRmsNorm(Unfused):
    """x / sqrt(mean(x²) + eps) · (offset + weight), all in float32, rounded once at the end (Gemma)."""

    def __init__(self, weight: Tensor, eps: float, offset: float) -> None:
        self._weight = weight.float() + offset
        self._eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        """[T, hidden] to the same shape."""
        return F.rms_norm(x.float(), self._weight.shape, self._weight, self._eps).to(x.dtype)


class Rounded(Unfused):
    """A norm of a stream that is wider than what layers compute in, rounded to their dtype at the end."""

    def __init__(self, norm: Norm, dtype: torch.dtype) -> None:
        self._norm = norm
        self._dtype = dtype

    def __call__(self, x: Tensor) -> Tensor:
        """[T, hidden] to the same shape."""
        return self._norm(x).to(self._dtype)


class FusedRmsNorm:
    """The same in one kernel with the addition before it, on CUDA devices. weight: of the hidden type or wider."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        from text_generation_server.kernels import norm  # only here is Triton sure to be installed

        self._kernels = norm
        self._weight = weight
        self._eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        """See `Norm`."""
        return self._kernels.rms_norm(x, self._weight, self._eps)

    def of_sum(self, delta: Tensor, residual: Tensor) -> Tensor:
        """See `Norm`."""
        return self._kernels.add_rms_norm(delta, residual, self._weight, self._eps)


class FusedLayerNorm:
    """The same in one kernel with the addition before it, on CUDA devices."""

    def __init__(self, weight: Tensor | None, bias: Tensor | None, eps: float) -> None:
        from text_generation_server.kernels import norm  # only here is Triton sure to be installed

        self._kernels = norm
        self._weight, self._bias, self._eps = weight, bias, eps

    def __call__(self, x: Tensor) -> Tensor:
        """See `Norm`."""
        return self._kernels.layer_norm(x, self._weight, self._bias, self._eps)

    def of_sum(self, delta: Tensor, residual: Tensor) -> Tensor:
        """See `Norm`."""
        return self._kernels.add_layer_norm(delta, residual, self._weight, self._bias, self._eps)


def rms_norm(weight: Tensor, eps: float, offset: float = 0.0) -> Norm:
    """The root mean square norm with weight + offset [hidden], as the weight's device computes it best."""
    if weight.is_cuda:
        return FusedRmsNorm(weight.float() + offset if offset else weight, eps)
    return OffsetRmsNorm(weight, eps, offset) if offset else RmsNorm(weight, eps)


def layer_norm(weight: Tensor | None, bias: Tensor | None, eps: float, device: torch.device) -> Norm:
    """The layer norm as the device computes it best."""
    norm = FusedLayerNorm if device.type == "cuda" else LayerNorm
    return norm(weight, bias, eps)
