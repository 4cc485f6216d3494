"""Activation functions of MLPs, plain and gated. Knows no weights."""

from collections.abc import Callable, Mapping
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.specs.activation import GAIN, LIMIT, Activation

Elementwise = Callable[[Tensor], Tensor]


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _gelu_sigmoid(x: Tensor) -> Tensor:
    wide = x.float()  # rounded once, as torch's own functions are
    return torch.sigmoid(GAIN * wide).mul_(wide).to(x.dtype)


def _clamped(x: Tensor) -> Tensor:
    return _gelu_sigmoid(x.clamp(max=LIMIT))


def _bounded_and_one(x: Tensor) -> Tensor:
    return x.to(torch.float32, copy=True).clamp_(-LIMIT, LIMIT).add_(1.0)


_FUNCTIONS: Mapping[Activation, Elementwise] = {
    Activation.SILU: F.silu,
    Activation.RELU: F.relu,
    Activation.GELU: F.gelu,
    Activation.GELU_TANH: _gelu_tanh,
    Activation.GELU_SIGMOID: _gelu_sigmoid,
    Activation.CLAMPED_SWIGLU: _clamped,
}

_COUNTERPARTS: Mapping[Activation, Elementwise] = {Activation.CLAMPED_SWIGLU: _bounded_and_one}
"""What becomes of that which gates let through, where it is not as it is."""


def activation(kind: Activation) -> Elementwise:
    """The function, [T, n] to [T, n]."""
    return _FUNCTIONS[kind]


@cache
def gated_activation(kind: Activation) -> Elementwise:
    """[T, 2 · n], gate first, to act(gate) · up [T, n]."""
    function, other = _FUNCTIONS[kind], _COUNTERPARTS.get(kind)

    def gated(x: Tensor) -> Tensor:
        if x.is_cuda:
            from text_generation_server.kernels import activation  # only there is Triton sure to be installed

            return activation.gated(x, kind)
        gate, up = x.chunk(2, dim=-1)
        return function(gate).mul_(up if other is None else other(up))

    return gated
