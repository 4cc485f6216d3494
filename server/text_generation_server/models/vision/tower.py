"""The one vision transformer that runs every tower's spec. Knows neither specs nor checkpoints, nor what images are.

Dimensions: N tiles, n tokens of a tile, H heads of the rank, d head_dim. The hidden state travels as a pair, as in
`models/decoder.py`, with the tokens of all tiles laid end to end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from text_generation_server.layers.linear import ColumnParallelLinear, LinearKernel, LinearStep, RowParallelLinear
from text_generation_server.layers.norm import Norm
from text_generation_server.models.decoder import DenseMlp, HiddenState

KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Not cuDNN's: it spends 50 ms on every new length."""

TOKENS = LinearStep(None)
"""Of tiles nothing is known to linears: adapters are to the decoder."""


class PatchEmbedding:
    """Patches to tokens, with learned positions [n, hidden], the first of them of a class token [1, hidden] if any.

    by_fraction: positions are a square's, of which a patch has the one that is as far in it as it is in its tile.
    """

    def __init__(
        self,
        patch_size: int,
        linear: LinearKernel,
        positions: Tensor,
        class_token: Tensor | None,
        by_fraction: bool = False,
    ) -> None:
        self._patch_size = patch_size
        self._linear = linear
        self._positions = positions
        self._class_token = class_token
        self._by_fraction = by_fraction

    def __call__(self, pixels: Tensor) -> Tensor:
        """[N, channels, height, width] to [N, n, hidden]."""
        tiles, channels, height, width = pixels.shape
        size = self._patch_size
        patches = pixels.view(tiles, channels, height // size, size, width // size, size).permute(0, 2, 4, 1, 3, 5)
        x = self._linear(patches.reshape(-1, channels * size * size)).view(tiles, -1, self._positions.shape[1])
        if self._class_token is not None:
            x = torch.cat((self._class_token.expand(tiles, 1, -1), x), 1)
        if self._by_fraction:
            return x + self._positions[fractional_places(height // size, width // size, isqrt(len(self._positions)))]
        return x + self._positions


def fractional_places(rows: int, columns: int, side: int) -> Tensor:
    """Which of a square's places [rows · columns], of so many in a row, are as far in it as patches are in a tile.

    In float32 on the host, as in training: at the borders of places rounding decides.
    """
    borders = torch.arange(1 / side, 1.0, 1 / side)
    down, across = (
        torch.bucketize((torch.arange(count) * (1.0 / torch.tensor(count))).clamp(max=1 - 1e-6), borders, right=True)
        for count in (rows, columns)
    )
    return (down[:, None] * side + across).flatten()


class TowerAttention:
    """Every token of a tile sees all of that tile."""

    def __init__(self, qkv: ColumnParallelLinear, out: RowParallelLinear, head_dim: int) -> None:
        self._qkv, self._out, self._head_dim = qkv, out, head_dim

    def __call__(self, x: Tensor, tiles: int) -> Tensor:
        """[N · n, hidden] to the same shape."""
        q, k, v = self._qkv(x, TOKENS).view(tiles, len(x) // tiles, 3, -1, self._head_dim).permute(2, 0, 3, 1, 4)
        with sdpa_kernel(KERNELS):
            attended = F.scaled_dot_product_attention(q, k, v)  # [N, H, n, d]
        return self._out(attended.transpose(1, 2).reshape(len(x), -1), TOKENS)


@dataclass(frozen=True, slots=True)
class TowerBlock:
    """x += attention(n1(x)); x += mlp(n2(x))."""

    norm1: Norm
    attention: TowerAttention
    norm2: Norm
    mlp: DenseMlp

    def __call__(self, delta: Tensor, residual: Tensor, tiles: int) -> HiddenState:
        """[N · n, hidden] each to the same shapes."""
        delta = self.attention(self.norm1.of_sum(delta, residual), tiles)
        return self.mlp(self.norm2.of_sum(delta, residual), TOKENS), residual


@dataclass(frozen=True, slots=True)
class Tower:
    """taken: numbers of blocks, from 1, whose outputs are the features, side by side; 0 is what the first one reads.

    extra: tokens before the patches' that are no features.
    """

    embedding: PatchEmbedding
    before: Norm
    blocks: Sequence[TowerBlock]
    after: Norm
    taken: tuple[int, ...]
    extra: int

    def __call__(self, pixels: Tensor) -> Tensor:
        """[N, channels, height, width] to the features of patches [N, n - extra, width]."""
        x = self.embedding(pixels)
        tiles, tokens, hidden = x.shape
        delta = self.before(x.view(-1, hidden))
        residual = torch.zeros_like(delta)
        outputs = {0: delta}
        for number, block in enumerate(self.blocks, 1):
            delta, residual = block(delta, residual, tiles)
            if number in self.taken:
                outputs[number] = residual + delta
        features = torch.cat([self.after(outputs[number]) for number in self.taken], -1)
        return features.view(tiles, tokens, -1)[:, self.extra :]
