"""Experts of plain weights, all of them in one product. Knows no router and no names.

On a GPU few tokens, and all of narrow experts, go through kernels of ours; else tokens are sorted by expert. Nothing
here runs once an expert or a token, and nothing waits for the device.

Dimensions: T tokens, E experts, k chosen ones a token, I inner size of an expert on this rank.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.layers.activation import gated_activation
from text_generation_server.layers.moe import (
    ExpertBiases,
    ExpertsAddend,
    ExpertsKernel,
    added_to,
    pairs_of,
    with_bias,
)
from text_generation_server.quantization.tuning import DTYPES
from text_generation_server.specs.activation import Activation

FEW_PAIRS = 128
"""Of a token and a choice, for an expert if all are liked alike: so far the time goes into reading weights."""

NARROW = 2048
"""Inner numbers of an expert up to which sorting and gathering take longer than better products save."""


class DenseExperts(ExpertsKernel):
    """The gated MLPs of all experts: up [E, 2 I, hidden], gates first, and down [E, hidden, I]."""

    def __init__(self, up: Tensor, kind: Activation, down: Tensor, biases: ExpertBiases | None = None) -> None:
        self._up, self._down = up, down
        self._up_bias = None if biases is None else biases.up
        self._down_bias = None if biases is None else biases.down
        self._kind = kind
        self._activation = gated_activation(kind)
        self._numbers = torch.arange(up.shape[0], device=up.device)

    def __call__(self, x: Tensor, experts: Tensor, weights: Tensor, addend: ExpertsAddend | None = None) -> Tensor:
        """See `ExpertsKernel`."""
        few = experts.numel() <= FEW_PAIRS * len(self._up) or self._down.shape[2] <= NARROW
        if x.is_cuda and x.dtype in DTYPES and few:
            return self.looked_up(x, experts, weights, addend)
        return self.sorted(x, experts, weights, addend)

    def looked_up(self, x: Tensor, experts: Tensor, weights: Tensor, addend: ExpertsAddend | None = None) -> Tensor:
        """By kernels whose programs look for their expert's pairs."""
        from text_generation_server.kernels.experts.combine import combine  # only there is Triton sure to be installed
        from text_generation_server.kernels.experts.order import ordered
        from text_generation_server.kernels.experts.product import product

        top, places = experts.shape[1], (experts, *ordered(experts, len(self._up)))
        up_bias, down_bias = self._up_bias, self._down_bias
        if addend is None:
            inner = product(x, self._up, *places, top, self._kind, up_bias)
            outer = product(inner, self._down, *places, 1, bias=down_bias)
        else:
            rows, added = pairs_of(x, experts, addend)
            inner = self._activation(added.up(rows)(product(x, self._up, *places, top, bias=up_bias)))
            outer = added.down(inner)(product(inner, self._down, *places, 1, bias=down_bias))
        return combine(outer, weights)

    def sorted(self, x: Tensor, experts: Tensor, weights: Tensor, addend: ExpertsAddend | None = None) -> Tensor:
        """Sorted by expert, one product of all experts."""
        chosen, order = experts.flatten().sort()
        ends = torch.searchsorted(chosen, self._numbers, right=True, out_int32=True)
        tokens = order // experts.shape[1]
        added, rows = added_to(addend, tokens, chosen), x[tokens]
        first = with_bias(F.grouped_mm(rows, self._up.transpose(1, 2), offs=ends), self._up_bias, chosen)
        inner = self._activation(added.up(rows)(first))
        last = with_bias(F.grouped_mm(inner, self._down.transpose(1, 2), offs=ends), self._down_bias, chosen)
        outer = added.down(inner)(last)
        by_token = torch.empty_like(outer)
        by_token[order] = outer
        return (by_token.view(*experts.shape, -1) * weights[:, :, None]).sum(1)
