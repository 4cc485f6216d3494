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
from text_generation_server.layers.rotary import rotate
from text_generation_server.models.decoder import DenseMlp, HiddenState
from text_generation_server.models.vision.arrangement import Arrangement

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


class PackedEmbedding:
    """Patches that come packed to tokens in the order of their arrangement. positions: learned, None without any."""

    def __init__(self, linear: LinearKernel, positions: Tensor | None) -> None:
        self._linear = linear
        self._positions = positions

    def __call__(self, pixels: Tensor, arrangement: Arrangement) -> Tensor:
        """[N, n, numbers of a patch] to [N, n, hidden]."""
        x = self._linear(pixels.flatten(0, 1)).view(*pixels.shape[:2], -1)[:, arrangement.order]
        if self._positions is None or arrangement.near is None or arrangement.weights is None:
            return x
        added = (self._positions[arrangement.near] * arrangement.weights[..., None]).sum(0)
        return x.add_(added.to(x.dtype))


@dataclass(frozen=True, slots=True)
class TileStep:
    """What the blocks share of some tiles. tiles: how many. arrangement: of their patches, None where positions are
    learned.
    """

    tiles: int
    arrangement: Arrangement | None = None


class TowerAttention:
    """Every token of a tile sees all of that tile; windowed: of its window."""

    def __init__(
        self, qkv: ColumnParallelLinear, out: RowParallelLinear, head_dim: int, windowed: bool = False
    ) -> None:
        self._qkv, self._out, self._head_dim, self._windowed = qkv, out, head_dim, windowed

    def __call__(self, x: Tensor, step: TileStep) -> Tensor:
        """[N · n, hidden] to the same shape."""
        tiles, arranged = step.tiles, step.arrangement
        qkv = self._qkv(x, TOKENS).view(tiles, len(x) // tiles, 3, -1, self._head_dim)
        if arranged is None:
            return self._out(_attended(qkv).view(len(x), -1), TOKENS)
        turned = qkv[:, :, :2].flatten(2, 3).float()  # in float32, as in training
        rotate(turned, arranged.angles)
        qkv[:, :, :2] = turned.view_as(qkv[:, :, :2])
        parts = arranged.windows if self._windowed else [(1, qkv.shape[1])]
        split = torch.split(qkv, [count * size for count, size in parts], 1)
        seen = [
            _attended(part.reshape(tiles * count, size, *part.shape[2:])).view(tiles, count * size, -1)
            for part, (count, size) in zip(split, parts, strict=True)
        ]
        return self._out(torch.cat(seen, 1).view(len(x), -1), TOKENS)


def _attended(qkv: Tensor) -> Tensor:
    """[N, n, 3, H, d] to [N, n, H · d]."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    with sdpa_kernel(KERNELS):
        attended = F.scaled_dot_product_attention(q, k, v)  # [N, H, n, d]
    return attended.transpose(1, 2).flatten(2)


@dataclass(frozen=True, slots=True)
class TowerBlock:
    """x += attention(n1(x)); x += mlp(n2(x))."""

    norm1: Norm
    attention: TowerAttention
    norm2: Norm
    mlp: DenseMlp

    def __call__(self, delta: Tensor, residual: Tensor, step: TileStep) -> HiddenState:
        """[N · n, hidden] each to the same shapes."""
        delta = self.attention(self.norm1.of_sum(delta, residual), step)
        return self.mlp(self.norm2.of_sum(delta, residual), TOKENS), residual


@dataclass(frozen=True, slots=True)
class Tower:
    """taken: numbers of blocks, from 1, whose outputs are the features, side by side; 0 is what the first one reads.

    extra: tokens before the patches' that are no features.
    """

    embedding: PatchEmbedding | PackedEmbedding
    before: Norm
    blocks: Sequence[TowerBlock]
    after: Norm
    taken: tuple[int, ...]
    extra: int

    def __call__(self, pixels: Tensor, arrangement: Arrangement | None = None) -> Tensor:
        """[N, channels, height, width], or of packed patches [N, n, numbers of a patch] with their arrangement, to the
        features of patches [N, n - extra, width].
        """
        x = self._embedded(pixels, arrangement)
        tiles, tokens, hidden = x.shape
        step = TileStep(tiles, arrangement)
        delta = self.before(x.view(-1, hidden))
        residual = torch.zeros_like(delta)
        outputs = {0: delta}
        for number, block in enumerate(self.blocks, 1):
            delta, residual = block(delta, residual, step)
            if number in self.taken:
                outputs[number] = residual + delta
        features = torch.cat([self.after(outputs[number]) for number in self.taken], -1)
        features = features.view(tiles, tokens, -1)
        return features[:, self.extra :] if arrangement is None else features[:, arrangement.back]

    def _embedded(self, pixels: Tensor, arrangement: Arrangement | None) -> Tensor:
        if isinstance(self.embedding, PatchEmbedding):
            return self.embedding(pixels)
        assert arrangement is not None
        return self.embedding(pixels, arrangement)
