"""Linears of one input whose weights cannot be in one matrix. Knows no form of weights."""

from collections.abc import Sequence

import torch
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
    """Takes its inputs in another order. order: [n] int64, which of them comes where; the one behind the last is 0."""

    def __init__(self, kernel: LinearKernel, order: Tensor, padded: bool) -> None:
        self._kernel = kernel
        self._order = order
        self._padded = padded

    def __call__(self, x: Tensor) -> Tensor:
        """[T, in] to [T, out]."""
        return self._kernel(self._arranged(x))

    def _arranged(self, x: Tensor) -> Tensor:
        return (torch.nn.functional.pad(x, (0, 1)) if self._padded else x)[:, self._order]
