"""Activation functions of MLPs, plain and gated. Knows no weights."""

from collections.abc import Callable, Mapping
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.specs.activation import Activation

Elementwise = Callable[[Tensor], Tensor]


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _gelu_sigmoid(x: Tensor) -> Tensor:
    wide = x.float()  # rounded once, as torch's own functions are
    return torch.sigmoid(1.702 * wide).mul_(wide).to(x.dtype)


_FUNCTIONS: Mapping[Activation, Elementwise] = {
    Activation.SILU: F.silu,
    Activation.RELU: F.relu,
    Activation.GELU: F.gelu,
    Activation.GELU_TANH: _gelu_tanh,
    Activation.GELU_SIGMOID: _gelu_sigmoid,
}


def activation(kind: Activation) -> Elementwise:
    """The function, [T, n] to [T, n]."""
    return _FUNCTIONS[kind]


@cache
def gated_activation(kind: Activation) -> Elementwise:
    """[T, 2 · n], gate first, to act(gate) · up [T, n]."""
    function = _FUNCTIONS[kind]

    def gated(x: Tensor) -> Tensor:
        if x.is_cuda:
            from text_generation_server.kernels import activation  # only there is Triton sure to be installed

            return activation.gated(x, kind)
        gate, up = x.chunk(2, dim=-1)
        return function(gate).mul_(up)

    return gated
