"""Experts of plain weights, all of them in one product. Knows no router and no names.

Tokens are sorted by expert, so that nothing here runs once an expert or a token, and nothing waits for the device.

Dimensions: T tokens, E experts, k chosen ones a token, I inner size of an expert on this rank.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.layers.activation import gated_activation
from text_generation_server.layers.moe import ExpertBiases, ExpertsAddend, ExpertsKernel, added_to, with_bias
from text_generation_server.specs.activation import Activation


class DenseExperts(ExpertsKernel):
    """The gated MLPs of all experts: up [E, 2 I, hidden], gates first, and down [E, hidden, I]."""

    def __init__(self, up: Tensor, kind: Activation, down: Tensor, biases: ExpertBiases | None = None) -> None:
        self._up = up.transpose(1, 2)
        self._activation = gated_activation(kind)
        self._down = down.transpose(1, 2)
        self._up_bias = None if biases is None else biases.up
        self._down_bias = None if biases is None else biases.down
        self._numbers = torch.arange(up.shape[0], device=up.device)

    def __call__(self, x: Tensor, experts: Tensor, weights: Tensor, addend: ExpertsAddend | None = None) -> Tensor:
        """See `ExpertsKernel`."""
        chosen, order = experts.flatten().sort()
        ends = torch.searchsorted(chosen, self._numbers, right=True, out_int32=True)
        tokens = order // experts.shape[1]
        added, rows = added_to(addend, tokens, chosen), x[tokens]
        first = with_bias(F.grouped_mm(rows, self._up, offs=ends), self._up_bias, chosen)
        inner = self._activation(added.up(rows)(first))
        last = with_bias(F.grouped_mm(inner, self._down, offs=ends), self._down_bias, chosen)
        outer = added.down(inner)(last)
        by_token = torch.empty_like(outer)
        by_token[order] = outer
        return (by_token.view(*experts.shape, -1) * weights[:, :, None]).sum(1)
