"""Norms of queries and keys before they are rotated (arXiv 2302.05442). Knows no checkpoint.

Dimensions: T tokens, H query and K key heads of the rank, d head_dim. All is computed in float32 and rounded once.
Heads may be wider than the weights: what is behind is zero, stays so, and does not count.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.distributed.group import TensorParallel


class QkNorm(Protocol):
    """Normalises queries and keys."""

    def __call__(self, heads: Tensor) -> None:
        """[T, H + K, d or more], in place."""


class HeadRmsNorm:
    """Root mean square of each head by itself. weight: [H + K, d] in float32."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        self._weight = weight
        self._eps = eps

    def __call__(self, heads: Tensor) -> None:
        """See `QkNorm`."""
        heads = heads[..., : self._weight.shape[1]]
        heads.copy_(F.rms_norm(heads.float(), heads.shape[-1:], None, self._eps).mul_(self._weight))


class HeadLayerNorm:
    """Mean and variance of each head by itself. weight: [H + K, d] in float32."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        self._weight = weight
        self._eps = eps

    def __call__(self, heads: Tensor) -> None:
        """See `QkNorm`."""
        heads = heads[..., : self._weight.shape[1]]
        heads.copy_(F.layer_norm(heads.float(), heads.shape[-1:], None, None, self._eps).mul_(self._weight))


class AllHeadsRmsNorm:
    """Root mean square of all query heads of the model together, and of all key heads.

    weight: [H + K, d] in float32. heads, kv_heads: those of the whole model. Ranks add up their squares; where a key
    head is on several ranks, each adds its share.
    """

    def __init__(self, weight: Tensor, eps: float, heads: int, kv_heads: int, group: TensorParallel) -> None:
        self._weight = weight
        self._eps = eps
        self._queries = heads // group.world_size
        self._group = group
        held = weight.shape[0] - self._queries
        head_dim = weight.shape[1]
        # Mean over all heads of what this rank adds: each key head counts once, however many ranks hold it.
        self._shares = torch.tensor(
            (1 / (heads * head_dim), 1 / (group.world_size * held * head_dim)), device=weight.device
        )

    def __call__(self, heads: Tensor) -> None:
        """See `QkNorm`."""
        heads = heads[..., : self._weight.shape[1]]
        x = heads.float()
        squares = x.square().sum(-1)
        sums = torch.stack((squares[:, : self._queries].sum(1), squares[:, self._queries :].sum(1)), 1)
        factors = (self._group.all_reduce(sums * self._shares) + self._eps).rsqrt()
        x[:, : self._queries] *= factors[:, :1, None]
        x[:, self._queries :] *= factors[:, 1:, None]
        heads.copy_(x * self._weight)
