"""A mixture of experts (arXiv 2101.03961): every token through the few experts its router chooses. Knows no checkpoint.

Tokens are sorted by expert and go through all experts in one grouped product, so that nothing here runs once an expert
or a token, and nothing waits for the device.

Dimensions: T tokens, E experts, k chosen ones a token, I inner size of an expert on this rank.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.layers.activation import Elementwise


class Router:
    """Chooses by softmax over all experts. normalise: order of the norm that chosen weights are divided by, or None."""

    def __init__(self, weight: Tensor, top_k: int, normalise: float | None) -> None:
        self._weight = weight
        self._top_k = top_k
        self._normalise = normalise

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[T, hidden] to the chosen experts and their weights, [T, k] each."""
        scores = F.linear(x, self._weight).float().softmax(-1)
        weights, experts = scores.topk(self._top_k)
        if self._normalise is not None:
            weights = weights / torch.linalg.vector_norm(weights, self._normalise, -1, keepdim=True)
        return experts, weights.to(x.dtype)


class Experts:
    """The gated MLPs of all experts: up [E, 2 I, hidden], gates first, and down [E, hidden, I]."""

    def __init__(self, up: Tensor, gated_activation: Elementwise, down: Tensor) -> None:
        self._up = up.transpose(1, 2)
        self._activation = gated_activation
        self._down = down.transpose(1, 2)
        self._numbers = torch.arange(up.shape[0], device=up.device)

    def __call__(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """[T, hidden], and [T, k] as the router gives them, to this rank's part of the sum [T, hidden]."""
        chosen, order = experts.flatten().sort()
        ends = torch.searchsorted(chosen, self._numbers, right=True, out_int32=True)
        inner = self._activation(F.grouped_mm(x[order // experts.shape[1]], self._up, offs=ends))
        outer = F.grouped_mm(inner, self._down, offs=ends)
        by_token = torch.empty_like(outer)
        by_token[order] = outer
        return (by_token.view(*experts.shape, -1) * weights[:, :, None]).sum(1)
