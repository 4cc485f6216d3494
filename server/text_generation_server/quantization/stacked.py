"""Linears of one input whose weights cannot be in one matrix. Knows no form of weights."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.layers.linear import LinearKernel


class StackedLinear(LinearKernel):
    """The outputs of several, one behind the other."""

    def __init__(self, parts: Sequence[LinearKernel]) -> None:
        self._parts = tuple(parts)

    def __call__(self, x: Tensor) -> Tensor:
        """[T, in] to [T, out]."""
        return torch.cat([part(x) for part in self._parts], -1)


class ArrangedLinear(LinearKernel):
    """Takes its inputs in another order, see `arranged`."""

    def __init__(self, kernel: LinearKernel, order: Tensor) -> None:
        self._kernel = kernel
        self._order = order

    def __call__(self, x: Tensor) -> Tensor:
        """[T, in] to [T, out]."""
        return self._kernel(arranged(x, self._order))


def arranged(x: Tensor, order: Tensor | None) -> Tensor:
    """Inputs [T, in] in another order [n] int64, of which the one behind the last is 0; None for as they are."""
    return x if order is None else F.pad(x, (0, 1))[:, order]
