"""Latents that look at the patches of a tile and at each other, as many a tile whatever its size (arXiv 2103.03206).

Dimensions: N tiles, n patches of a tile, l latents, H and K query and key/value heads of the rank, d head_dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from text_generation_server.layers.linear import ColumnParallelLinear, RowParallelLinear
from text_generation_server.layers.norm import Norm
from text_generation_server.models.decoder import DenseMlp
from text_generation_server.models.vision.tower import KERNELS, TOKENS


@dataclass(frozen=True, slots=True)
class PerceiverLayer:
    """x += attention(n1(x), [n2(context); n1(x)]); x += mlp(n3(x)). keys_values: keys first. head_norms: of queries and
    keys, None for none.
    """

    latents_norm: Norm
    context_norm: Norm
    queries: ColumnParallelLinear
    keys_values: ColumnParallelLinear
    out: RowParallelLinear
    mlp_norm: Norm
    mlp: DenseMlp
    head_dim: int
    head_norms: tuple[Norm, Norm] | None = None

    def __call__(self, x: Tensor, context: Tensor, tiles: int) -> Tensor:
        """Latents [N · l, hidden] and patches [N · n, hidden] to latents."""
        normed, seen = self.latents_norm(x), self.context_norm(context)
        every = torch.cat((seen.view(tiles, -1, x.shape[1]), normed.view(tiles, -1, x.shape[1])), 1)
        kv = self.keys_values(every.flatten(0, 1), TOKENS).view(tiles, every.shape[1], 2, -1, self.head_dim)
        keys, values = kv.permute(2, 0, 3, 1, 4).unbind()  # [N, K, n + l, d]
        heads = keys.shape[1]
        q = self.queries(normed, TOKENS).view(tiles, len(x) // tiles, -1, self.head_dim).transpose(1, 2)  # [N, H, l, d]
        if self.head_norms is not None:
            q, keys = self.head_norms[0](q), self.head_norms[1](keys)
        keys, values = (held.repeat_interleave(q.shape[1] // heads, 1) for held in (keys, values))
        with sdpa_kernel(KERNELS):
            attended = F.scaled_dot_product_attention(q, keys, values)
        x = x + self.out(attended.transpose(1, 2).reshape(len(x), -1), TOKENS)
        return x + self.mlp(self.mlp_norm(x), TOKENS)


@dataclass(frozen=True, slots=True)
class Perceiver:
    """mlp: of each patch, from the tower's width to the decoder's; None where they are seen as they are.

    latents: [l, hidden].
    """

    mlp: DenseMlp | None
    latents: Tensor
    layers: Sequence[PerceiverLayer]
    norm: Norm

    def __call__(self, features: Tensor) -> Tensor:
        """[N, n, width] to [N, l, hidden]."""
        tiles = len(features)
        context = features.flatten(0, 1)
        if self.mlp is not None:
            context = self.mlp(context, TOKENS)
        x = self.latents.repeat(tiles, 1)
        for layer in self.layers:
            x = layer(x, context, tiles)
        return self.norm(x).view(tiles, *self.latents.shape)
