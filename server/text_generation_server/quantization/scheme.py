"""The one scheme of all forms that are not plain: they differ in how a linear is read. Knows no form."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from loguru import logger
from torch import Tensor

from text_generation_server.layers.moe import ExpertBiases, ExpertsKernel
from text_generation_server.quantization.base import Matrix
from text_generation_server.quantization.coded import Coded
from text_generation_server.quantization.coded_experts import CodedExperts
from text_generation_server.quantization.dense import DenseScheme
from text_generation_server.quantization.dense_experts import DenseExperts
from text_generation_server.quantization.pieces import PiecewiseMatrix, Stored, joined
from text_generation_server.quantization.plain import PlainStored
from text_generation_server.specs.activation import Activation
from text_generation_server.weights.checkpoint import Checkpoint


class Format(Protocol):
    """How the linears of a checkpoint are read."""

    @property
    def heads(self) -> bool:
        """Whether the output head, and small linears beside the others, may be among them."""

    def find(self, checkpoint: Checkpoint, name: str, shape: tuple[int, int], transposed: bool) -> Stored | None:
        """The linear [out, in] of this name without suffix; None where it is plain. Raises UnsupportedModel.

        transposed: see `QuantScheme.read`.
        """


ALL = slice(None), slice(None)
"""Rows and columns."""


@runtime_checkable
class StackedFormat(Format, Protocol):
    """One that has the weights of all experts of a layer in one tensor, where they lie so. size: inputs of a group."""

    @property
    def size(self) -> int:
        """See the class."""

    def stacked(self, checkpoint: Checkpoint, name: str, experts: int, shape: tuple[int, int]) -> Sequence[Stored]:
        """The linear [out, in] of each expert; `name` is that of a tensor of plain ones. Raises UnsupportedModel."""


class CodedScheme:
    """Satisfies `QuantScheme`. dense: of linears that are plain, and of what every linear is computed with."""

    def __init__(self, form: Format, dense: DenseScheme) -> None:
        self._form = form
        self._dense = dense

    def read(self, checkpoint: Checkpoint, name: str, shape: tuple[int, int], transposed: bool) -> PiecewiseMatrix:
        """See `QuantScheme`."""
        found = self._form.find(checkpoint, name, shape, transposed)
        return PiecewiseMatrix.whole(found or PlainStored(checkpoint, name, shape, transposed, self._dense))

    def head(self, checkpoint: Checkpoint, name: str, shape: tuple[int, int]) -> Matrix:
        """See `QuantScheme`."""
        if self._form.heads:
            return self.read(checkpoint, name, shape, transposed=False)
        return self._dense.head(checkpoint, name, shape)

    def small(self, checkpoint: Checkpoint, name: str, shape: tuple[int, int]) -> Tensor:
        """See `QuantScheme`."""
        found = self._form.find(checkpoint, name, shape, transposed=False) if self._form.heads else None
        return self._dense.small(checkpoint, name, shape) if found is None else found.read(*ALL).plain()

    @property
    def stacks(self) -> bool:
        """See `QuantScheme`."""
        return isinstance(self._form, StackedFormat)

    @property
    def alignment(self) -> int:
        """See `QuantScheme`."""
        return self._form.size if isinstance(self._form, StackedFormat) else 1

    def stacked(
        self, checkpoint: Checkpoint, name: str, experts: int, shape: tuple[int, int], inputs_first: bool
    ) -> list[PiecewiseMatrix]:
        """See `QuantScheme`."""
        assert isinstance(self._form, StackedFormat)
        return [PiecewiseMatrix.whole(one) for one in self._form.stacked(checkpoint, name, experts, shape)]

    def experts(
        self,
        up: Sequence[PiecewiseMatrix],
        down: Sequence[PiecewiseMatrix],
        kind: Activation,
        biases: ExpertBiases | None = None,
    ) -> ExpertsKernel:
        """See `QuantScheme`. Those that cannot be in one matrix are plain."""
        ups, downs = (joined(part for matrix in matrices for part in matrix.read()) for matrices in (up, down))
        if len(ups) == len(downs) == 1 and isinstance(ups[0], Coded) and isinstance(downs[0], Coded):
            return CodedExperts(ups[0], kind, downs[0], len(up), biases)
        if any(isinstance(part, Coded) for part in (*ups, *downs)):
            logger.warning("Experts whose weights cannot be in one matrix are kept as plain weights")
        stacks = [torch.cat([part.plain() for part in parts]) for parts in (ups, downs)]
        first, last = (stack.view(len(up), -1, stack.shape[1]) for stack in stacks)
        return DenseExperts(first, kind, last, biases)
