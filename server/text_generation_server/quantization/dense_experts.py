"""Experts of plain weights, all of them in one product. Knows no router and no names.

Few tokens go through kernels of ours on a GPU; many are sorted by expert. Nothing here runs once an expert or a token,
and nothing waits for the device.

Dimensions: T tokens, E experts, k chosen ones a token, I inner size of an expert on this rank.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.layers.activation import gated_activation
from text_generation_server.layers.moe import ExpertsAddend, ExpertsKernel, added_to, pairs_of
from text_generation_server.specs.activation import Activation

FEW_PAIRS = 1 << 10
"""Of a token and a choice, up to which reading the weights is what takes the time."""

SMALL_DTYPES = (torch.bfloat16, torch.float16)


class DenseExperts(ExpertsKernel):
    """The gated MLPs of all experts: up [E, 2 I, hidden], gates first, and down [E, hidden, I]."""

    def __init__(self, up: Tensor, kind: Activation, down: Tensor) -> None:
        self._up, self._down = up, down
        self._kind = kind
        self._activation = gated_activation(kind)
        self._numbers = torch.arange(up.shape[0], device=up.device)

    def __call__(self, x: Tensor, experts: Tensor, weights: Tensor, addend: ExpertsAddend | None = None) -> Tensor:
        """See `ExpertsKernel`."""
        if x.is_cuda and x.dtype in SMALL_DTYPES and experts.numel() <= FEW_PAIRS:
            return self.of_few(x, experts, weights, addend)
        return self.of_many(x, experts, weights, addend)

    def of_few(self, x: Tensor, experts: Tensor, weights: Tensor, addend: ExpertsAddend | None = None) -> Tensor:
        """By kernels that look for each expert's pairs among all."""
        from text_generation_server.kernels.experts.combine import combine  # only there is Triton sure to be installed
        from text_generation_server.kernels.experts.product import product

        top = experts.shape[1]
        if addend is None:
            inner = product(x, self._up, experts, top, self._kind)
            outer = product(inner, self._down, experts, 1)
        else:
            rows, added = pairs_of(x, experts, addend)
            inner = self._activation(added.up(rows)(product(x, self._up, experts, top)))
            outer = added.down(inner)(product(inner, self._down, experts, 1))
        return combine(outer, weights)

    def of_many(self, x: Tensor, experts: Tensor, weights: Tensor, addend: ExpertsAddend | None = None) -> Tensor:
        """Sorted by expert, one product of all experts."""
        chosen, order = experts.flatten().sort()
        ends = torch.searchsorted(chosen, self._numbers, right=True, out_int32=True)
        tokens = order // experts.shape[1]
        added, rows = added_to(addend, tokens, chosen), x[tokens]
        inner = self._activation(added.up(rows)(F.grouped_mm(rows, self._up.transpose(1, 2), offs=ends)))
        outer = added.down(inner)(F.grouped_mm(inner, self._down.transpose(1, 2), offs=ends))
        by_token = torch.empty_like(outer)
        by_token[order] = outer
        return (by_token.view(*experts.shape, -1) * weights[:, :, None]).sum(1)
