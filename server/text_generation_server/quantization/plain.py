"""Plain weights beside coded ones: linears that a quantised checkpoint leaves as they were. Knows no format."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from text_generation_server.layers.linear import LinearKernel
from text_generation_server.quantization.dense import DenseScheme
from text_generation_server.quantization.pieces import Weights
from text_generation_server.weights.checkpoint import Checkpoint
from text_generation_server.weights.layout import Rows


@dataclass(frozen=True, slots=True)
class PlainWeights:
    """Weights [out, in] of any floating type, on any device."""

    weight: Tensor
    dense: DenseScheme

    @property
    def shape(self) -> tuple[int, int]:
        """[out, in]."""
        return self.weight.shape[0], self.weight.shape[1]

    def without(self, rows: Tensor, columns: Tensor) -> Self:
        """See `Weights`."""
        nothing = (rows[:, None] | columns[None, :]).to(self.weight.device)
        return replace(self, weight=self.weight.masked_fill(nothing, 0))

    def fits(self, other: Weights) -> bool:
        """See `Weights`."""
        return isinstance(other, PlainWeights)

    def joined(self, others: Sequence[Self]) -> Self:
        """See `Weights`."""
        return replace(self, weight=torch.cat([self.weight, *(other.weight for other in others)]))

    def linear(self, bias: Tensor | None) -> LinearKernel:
        """See `Weights`."""
        return self.dense.matrix(self.weight).finish(bias)

    def plain(self) -> Tensor:
        """[out, in] in the type that is computed with."""
        return self.weight.to(self.dense.device, self.dense.dtype)


@dataclass(frozen=True, slots=True)
class PlainStored:
    """The tensor `name`.weight; transposed: it is [in, out]."""

    checkpoint: Checkpoint
    name: str
    shape: tuple[int, int]
    transposed: bool
    dense: DenseScheme

    def read(self, rows: Rows, columns: Rows) -> PlainWeights:
        """See `Stored`."""
        matrix = self.dense.read(self.checkpoint, self.name, self.shape, self.transposed)
        return PlainWeights(matrix.select_out(rows).select_in(columns).weight, self.dense)
