"""Weights that are plain numbers, in whatever floating type the checkpoint has. Knows no names and no ranks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.quantization.base import LinearKernel
from text_generation_server.quantization.onednn import PackedLinear, can_pack
from text_generation_server.weights.checkpoint import Checkpoint
from text_generation_server.weights.layout import Rows


class PlainLinear:
    """Weights [out, in] as PyTorch multiplies them anywhere."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = weight
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """[T, in] to [T, out]."""
        return F.linear(x, self._weight, self._bias)


def dense_kernel(weight: Tensor, bias: Tensor | None) -> LinearKernel:
    """The fastest kernel for weights [out, in]. A plain one keeps this very tensor, a packed one a copy of its own."""
    return PackedLinear(weight, bias) if can_pack(weight) else PlainLinear(weight.contiguous(), bias)


@dataclass(frozen=True, slots=True)
class DenseMatrix:
    """A view of a checkpoint's tensor and what it is to become; ranges of it stay views."""

    weight: Tensor
    dtype: torch.dtype
    device: torch.device

    def select_out(self, rows: Rows) -> Self:
        """These outputs."""
        return self._with(self.weight[rows])

    def select_in(self, columns: slice) -> Self:
        """These inputs."""
        return self._with(self.weight[:, columns])

    def pad(self, outputs: int, inputs: int) -> Self:
        """Zeros behind, up to this shape."""
        if self.weight.shape == (outputs, inputs):
            return self
        return self._with(F.pad(self.weight, (0, inputs - self.weight.shape[1], 0, outputs - self.weight.shape[0])))

    def transpose(self) -> Self:
        """For checkpoints that store [in, out]."""
        return self._with(self.weight.T)

    def join_out(self, others: Sequence[Self]) -> Self:
        """The outputs of this and then of the others."""
        return self._with(torch.cat([self.weight, *(other.weight for other in others)])) if others else self

    def finish(self, bias: Tensor | None) -> LinearKernel:
        """Packed for the processor where that is possible."""
        weight = self.weight.to(self.device, self.dtype)
        if weight is self.weight and not can_pack(weight):
            # Never the mapped file itself: its pages would be dropped and read again under memory pressure.
            weight = weight.clone()
        return dense_kernel(weight, bias)

    def _with(self, weight: Tensor) -> Self:
        return type(self)(weight, self.dtype, self.device)


@dataclass(frozen=True, slots=True)
class DenseScheme:
    """Reads plain weights to be computed with in `dtype` on `device`."""

    dtype: torch.dtype
    device: torch.device

    def read(self, checkpoint: Checkpoint, name: str, shape: tuple[int, int]) -> DenseMatrix:
        """The tensor `name`.weight, still in its file."""
        return DenseMatrix(checkpoint.view(f"{name}.weight", shape), self.dtype, self.device)
