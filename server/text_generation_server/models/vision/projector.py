"""From a tower's features to the decoder's width. Knows neither specs nor checkpoints."""

from collections.abc import Sequence
from math import isqrt

import torch
from torch import Tensor

from text_generation_server.layers.linear import LinearKernel
from text_generation_server.layers.norm import Norm
from text_generation_server.models.decoder import DenseMlp
from text_generation_server.models.vision.tower import TOKENS


class PatchProjector:
    """Each patch by itself."""

    def __init__(self, mlp: DenseMlp) -> None:
        self._mlp = mlp

    def __call__(self, features: Tensor) -> Tensor:
        """[N, n, width] to [N, n, hidden]."""
        return self._mlp(features.flatten(0, 1), TOKENS).view(*features.shape[:2], -1)


class SquaresProjector:
    """The mean of each square of patches, so many in a row, normalised and multiplied by a matrix [width, hidden]."""

    def __init__(self, pooled: int, norm: Norm, weight: Tensor) -> None:
        self._pooled = pooled
        self._norm = norm
        self._weight = weight

    def __call__(self, features: Tensor) -> Tensor:
        """[N, n, width] to [N, n / pooled², hidden]."""
        tiles, count, width = features.shape
        side = isqrt(count) // self._pooled
        squares = features.view(tiles, side, self._pooled, side, self._pooled, width)
        means = squares.mean((2, 4)).view(-1, width)
        return (self._norm(means) @ self._weight).view(tiles, side * side, -1)


class MergedProjector:
    """So many normalised patches in turn, side by side, through an MLP. norm_last: normalised when side by side."""

    def __init__(self, merged: int, norm: Norm, mlp: DenseMlp, norm_last: bool) -> None:
        self._merged = merged
        self._norm = norm
        self._mlp = mlp
        self._norm_last = norm_last

    def __call__(self, features: Tensor) -> Tensor:
        """[N, n, width] to [N, n / merged, hidden]."""
        tiles, count, width = features.shape
        side_by_side = self._merged * width
        normed = self._norm(features.reshape(-1, side_by_side if self._norm_last else width))
        return self._mlp(normed.reshape(-1, side_by_side), TOKENS).view(tiles, count // self._merged, -1)


class StackedProjector:
    """A projector for each of the tower's layers whose outputs come side by side; so does what they make."""

    def __init__(self, parts: Sequence[MergedProjector]) -> None:
        self._parts = parts

    def __call__(self, features: Tensor) -> Tensor:
        """[N, n, parts · width] to [N, n', parts · hidden]."""
        layers = torch.chunk(features, len(self._parts), -1)
        return torch.cat([part(layer) for part, layer in zip(self._parts, layers, strict=True)], -1)


class ShuffledProjector:
    """Each square of patches, so many in a row, side by side, multiplied together."""

    def __init__(self, side: int, linear: LinearKernel) -> None:
        self._side = side
        self._linear = linear

    def __call__(self, features: Tensor) -> Tensor:
        """[N, n, width] to [N, n / side², hidden]."""
        tiles, count, width = features.shape
        side = isqrt(count) // self._side
        squares = features.view(tiles, side, self._side, side, self._side, width).transpose(2, 3)
        return self._linear(squares.reshape(tiles * side * side, -1)).view(tiles, side * side, -1)
