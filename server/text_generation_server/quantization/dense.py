"""Weights that are plain numbers, in whatever floating type the checkpoint has. Knows no names and no ranks."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.device.uploads import Uploads
from text_generation_server.kernels.matmul.config import CUBLAS
from text_generation_server.kernels.matmul.low_rank import LowRank
from text_generation_server.kernels.matmul.packed import Weight
from text_generation_server.layers.linear import LinearKernel, Offer
from text_generation_server.layers.moe import ExpertBiases, ExpertsKernel
from text_generation_server.quantization.dense_experts import DenseExperts
from text_generation_server.quantization.onednn import PackedLinear, can_pack
from text_generation_server.quantization.staging import Staging
from text_generation_server.quantization.tuning import ROWS, MatmulTuner
from text_generation_server.specs.activation import Activation
from text_generation_server.weights.checkpoint import Checkpoint
from text_generation_server.weights.layout import Rows


class PlainLinear(LinearKernel):
    """Weights [out, in] as PyTorch multiplies them anywhere."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = weight
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """[T, in] to [T, out]."""
        return F.linear(x, self._weight, self._bias)


class TunedLinear(LinearKernel):
    """Weights on a CUDA device, plain or of few bits: few rows are multiplied by what was fastest for so many.

    kind: of gates, the first half of the outputs; None for plain products.
    """

    def __init__(self, weight: Weight, bias: Tensor | None, tuner: MatmulTuner, kind: Activation | None = None) -> None:
        self._weight = weight
        self._bias = bias
        self._tuner = tuner
        self._kind = kind
        self._multiply = tuner.multiply
        self._shape = tuner.register(weight, kind)

    def __call__(self, x: Tensor) -> Tensor:
        """[T, in] to [T, out], or half of it."""
        choice = self._tuner.choice(self._shape, len(x)) if len(x) <= ROWS[-1] else CUBLAS
        return self._multiply(x, self._weight, self._bias, choice, self._kind)

    def with_addend(self, x: Tensor, offer: Offer) -> Tensor | None:
        """See `LinearKernel`: low-rank products, in a kernel of ours for plain weights."""
        choice = self._tuner.carrier(self._shape, len(x))
        if choice is None or not isinstance(low := offer(), LowRank):
            return None
        return self._multiply(x, self._weight, self._bias, choice, self._kind, low)

    def gated(self, kind: Activation) -> LinearKernel:
        """See `LinearKernel`; one kernel does both."""
        return TunedLinear(self._weight, self._bias, self._tuner, kind)


def dense_kernel(weight: Tensor, bias: Tensor | None, tuner: MatmulTuner | None = None) -> LinearKernel:
    """The fastest kernel for weights [out, in]. One that packs keeps a copy of its own, others this very tensor."""
    if can_pack(weight.dtype, weight.device):
        return PackedLinear(weight, bias)
    weight = weight.contiguous()
    return PlainLinear(weight, bias) if tuner is None else TunedLinear(weight, bias, tuner)


@dataclass(frozen=True, slots=True)
class DenseMatrix:
    """Views of a checkpoint's tensors, one above the other, and what they are to become; ranges of them stay views.

    Each weight is copied once, into its place in the finished matrix: `below` is what joined matrices add to `weight`.
    """

    weight: Tensor
    dtype: torch.dtype
    device: torch.device
    staging: Staging = field(default_factory=Staging)
    below: tuple[Tensor, ...] = ()
    tuner: MatmulTuner | None = None
    upload: Uploads = field(default_factory=Uploads)

    def select_out(self, rows: Rows) -> Self:
        """These outputs."""
        return self._with(self._joined()[rows])

    def select_in(self, columns: Rows) -> Self:
        """These inputs."""
        return self._with(*(weight[:, columns] for weight in self._weights))

    def pad(self, outputs: int, inputs: int) -> Self:
        """Zeros behind, up to this shape."""
        if self.shape == (outputs, inputs):
            return self
        rows, columns = self.shape
        return self._with(F.pad(self._joined(), (0, inputs - columns, 0, outputs - rows)))

    def transpose(self) -> Self:
        """For checkpoints that store [in, out]."""
        return self._with(self._joined().T)

    def join_out(self, others: Sequence[Self]) -> Self:
        """The outputs of this and then of the others."""
        return self._with(*self._weights, *(weight for other in others for weight in other._weights))

    def join_in(self, others: Sequence[Self]) -> Self:
        """The inputs of this and then of the others."""
        return self._with(torch.cat([matrix._joined() for matrix in (self, *others)], 1)) if others else self

    def finish(self, bias: Tensor | None) -> LinearKernel:
        """Packed for the processor where that is possible; what is laid out as wanted is packed from its file."""
        if not can_pack(self.dtype, self.device):
            # A copy even then: the mapped file's pages would be dropped and read again under memory pressure.
            copy = self.copy_to(torch.empty(self.shape, dtype=self.dtype, device=self.device))
            return dense_kernel(copy, bias, self.tuner)
        if not self.below and self.weight.dtype is self.dtype and self.weight.is_contiguous():
            return PackedLinear(self.weight, bias)
        with self.staging.lend(self.shape, self.dtype) as whole:
            return PackedLinear(self.copy_to(whole), bias)

    def copy_to(self, whole: Tensor) -> Tensor:
        """Put into this tensor of the matrix's shape, which is returned."""
        for place, weight in zip(torch.split(whole, [len(w) for w in self._weights]), self._weights, strict=True):
            self.upload(weight, place)
        return whole

    @property
    def shape(self) -> tuple[int, int]:
        """[out, in]."""
        return sum(len(weight) for weight in self._weights), self.weight.shape[1]

    @property
    def _weights(self) -> tuple[Tensor, ...]:
        return self.weight, *self.below

    def _joined(self) -> Tensor:
        return torch.cat(self._weights) if self.below else self.weight

    def _with(self, weight: Tensor, *below: Tensor) -> Self:
        return replace(self, weight=weight, below=below)


@dataclass(frozen=True, slots=True)
class DenseScheme:
    """Reads plain weights to be computed with in `dtype` on `device`. tuner: chooses kernels, None for torch's own."""

    dtype: torch.dtype
    device: torch.device
    tuner: MatmulTuner | None = None
    staging: Staging = field(default_factory=Staging)
    upload: Uploads = field(default_factory=Uploads)

    def read(self, checkpoint: Checkpoint, name: str, shape: tuple[int, int], transposed: bool) -> DenseMatrix:
        """The tensor `name`.weight, still in its file."""
        outputs, inputs = shape
        if transposed:
            return self.matrix(checkpoint.view(f"{name}.weight", (inputs, outputs))).transpose()
        return self.matrix(checkpoint.view(f"{name}.weight", shape))

    def head(self, checkpoint: Checkpoint, name: str, shape: tuple[int, int]) -> DenseMatrix:
        """See `QuantScheme`."""
        return self.read(checkpoint, name, shape, transposed=False)

    def small(self, checkpoint: Checkpoint, name: str, shape: tuple[int, int]) -> Tensor:
        """See `QuantScheme`."""
        view = checkpoint.view(f"{name}.weight", shape)
        return torch.empty(view.shape, dtype=self.dtype, device=self.device).copy_(view)

    def matrix(self, weight: Tensor) -> DenseMatrix:
        """Of weights that have been found already."""
        return DenseMatrix(weight, self.dtype, self.device, self.staging, tuner=self.tuner, upload=self.upload)

    @property
    def stacks(self) -> bool:
        """See `QuantScheme`."""
        return True

    @property
    def alignment(self) -> int:
        """See `QuantScheme`."""
        return 1

    def stacked(
        self, checkpoint: Checkpoint, name: str, experts: int, shape: tuple[int, int], inputs_first: bool
    ) -> list[DenseMatrix]:
        """See `QuantScheme`."""
        stored = experts, *shape
        if not inputs_first:
            return [self.matrix(one) for one in checkpoint.view(name, stored)]
        every = checkpoint.view(name, (experts, *shape[::-1]), others=[stored])
        return [self.matrix(one if every.shape == stored else one.T) for one in every]

    def experts(
        self,
        up: Sequence[DenseMatrix],
        down: Sequence[DenseMatrix],
        kind: Activation,
        biases: ExpertBiases | None = None,
    ) -> ExpertsKernel:
        """See `QuantScheme`. Each weight is copied once, into its place among all experts'."""
        return DenseExperts(self._copied(up), kind, self._copied(down), biases)

    def _copied(self, matrices: Sequence[DenseMatrix]) -> Tensor:
        """[E, out, in]"""
        stack = torch.empty(len(matrices), *matrices[0].shape, dtype=self.dtype, device=self.device)
        for place, matrix in zip(stack, matrices, strict=True):
            matrix.copy_to(place)
        return stack

    def kernel(self, weight: Tensor, bias: Tensor | None) -> LinearKernel:
        """Of weights in their final place, which are kept there if the kernel does not pack them."""
        return dense_kernel(weight, bias, self.tuner)
