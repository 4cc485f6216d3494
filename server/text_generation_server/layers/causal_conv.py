"""A causal convolution of each channel by itself, over the tokens of a step and those that a row remembers.

Knows no weights' names and no ranks. Dimensions: T tokens of the step, D channels of the rank, W inputs that a row
remembers, one less than a convolution sees.
"""

from typing import Protocol

import torch
from torch import Tensor

from text_generation_server.layers.activation import activation
from text_generation_server.layers.recurrence import RecurrentPlan
from text_generation_server.specs.activation import Activation


class CausalConv(Protocol):
    """A convolution and the activation function behind it, in float32, rounded once."""

    def __call__(self, x: Tensor, windows: Tensor, plan: RecurrentPlan) -> Tensor:
        """[T, D] to the same shape, a new tensor. windows: [rows, W, D], oldest first, are read and renewed."""


class TorchConv:
    """With torch's operators. weight: [W + 1, D] float32, that of the newest input last. bias: [D] float32."""

    def __init__(self, weight: Tensor, bias: Tensor | None, kind: Activation) -> None:
        self._weight = weight
        self._bias = torch.zeros(weight.shape[1]) if bias is None else bias
        self._activation = activation(kind)

    def __call__(self, x: Tensor, windows: Tensor, plan: RecurrentPlan) -> Tensor:
        """See `CausalConv`."""
        sums = self._singles(x, windows, plan.rows) if plan.are_singles else self._prompts(x, windows, plan)
        return self._activation(sums).to(x.dtype)

    def _singles(self, x: Tensor, windows: Tensor, rows: Tensor) -> Tensor:
        seen = torch.cat((windows[rows], x[:, None]), 1)
        windows.index_copy_(0, rows, seen[:, 1:])
        return (seen * self._weight).sum(1).add_(self._bias)

    def _prompts(self, x: Tensor, windows: Tensor, plan: RecurrentPlan) -> Tensor:
        sums = self._bias.repeat(len(x), 1)
        for row, first, past in plan.on_host():
            seen = torch.cat((windows[row], x[first:past]))
            windows[row] = seen[past - first :]
            for tap, weight in enumerate(self._weight):
                sums[first:past].addcmul_(seen[tap : tap + past - first], weight)
        return sums


class FusedConv:
    """In one kernel, on CUDA devices."""

    def __init__(self, weight: Tensor, bias: Tensor | None, kind: Activation) -> None:
        from text_generation_server.kernels.recurrence import conv  # only here is Triton sure to be installed

        self._kernel = conv.causal_conv
        self._weight, self._bias, self._kind = weight, bias, kind

    def __call__(self, x: Tensor, windows: Tensor, plan: RecurrentPlan) -> Tensor:
        """See `CausalConv`."""
        step = plan.rows, plan.ends, plan.are_singles, plan.count, plan.answer("convolution", x)
        return self._kernel(x, windows, *step, self._weight, self._bias, self._kind)


def causal_conv(weight: Tensor, bias: Tensor | None, kind: Activation) -> CausalConv:
    """The convolution with weight [W + 1, D] and bias [D] as their device computes it best."""
    conv = FusedConv if weight.is_cuda else TorchConv
    return conv(weight.float(), None if bias is None else bias.float(), kind)
