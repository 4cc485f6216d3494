"""A mixture of experts (arXiv 2101.03961): every token through the few experts its router chooses. Knows no checkpoint.

How experts are computed depends on the form of their weights: `quantization/`.

Dimensions: T tokens, k chosen experts a token.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


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


class ExpertsKernel(Protocol):
    """The gated MLPs of all experts."""

    def __call__(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """[T, hidden], and [T, k] as the router gives them, to this rank's part of the sum [T, hidden]."""
