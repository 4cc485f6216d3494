"""What a form of weights must offer, so that names, row order and rank cuts need not know it. Knows no form."""

from collections.abc import Sequence
from typing import Protocol, Self, TypeVar

from torch import Tensor

from text_generation_server.layers.linear import LinearKernel
from text_generation_server.layers.moe import ExpertBiases, ExpertsKernel
from text_generation_server.specs.activation import Activation
from text_generation_server.weights.checkpoint import Checkpoint
from text_generation_server.weights.layout import Rows


class Matrix(Protocol):
    """Weights [out, in] on their way from the checkpoint to a kernel."""

    def select_out(self, rows: Rows) -> Self:
        """These outputs."""

    def select_in(self, columns: Rows) -> Self:
        """These inputs."""

    def pad(self, outputs: int, inputs: int) -> Self:
        """Zeros behind, up to this shape."""

    def join_out(self, others: Sequence[Self]) -> Self:
        """The outputs of this and then of the others."""

    def join_in(self, others: Sequence[Self]) -> Self:
        """The inputs of this and then of the others."""

    def finish(self, bias: Tensor | None) -> LinearKernel:
        """Put into the form that is multiplied with; the matrix must not be used afterwards."""


M = TypeVar("M", bound=Matrix)


class QuantScheme(Protocol[M]):
    """One form of weights in checkpoints, and its matrices."""

    def read(self, checkpoint: Checkpoint, name: str, shape: tuple[int, int], transposed: bool) -> M:
        """The linear's weights [out, in]; `name` has no suffix. Lazy: cuts come before reading.

        transposed: where they are plain, they are stored [in, out].
        """

    def head(self, checkpoint: Checkpoint, name: str, shape: tuple[int, int]) -> Matrix:
        """The output head, as `read`; never transposed, and plain in most forms."""

    def small(self, checkpoint: Checkpoint, name: str, shape: tuple[int, int]) -> Tensor:
        """All weights of a linear of few outputs, which is multiplied with plain ones in every form."""

    @property
    def stacks(self) -> bool:
        """Whether `stacked` is offered. Where not, experts that lie in one tensor are plain."""

    @property
    def alignment(self) -> int:
        """What cuts of such experts' inner numbers are to be multiples of, so that no group is in two parts."""

    def stacked(
        self, checkpoint: Checkpoint, name: str, experts: int, shape: tuple[int, int], inputs_first: bool
    ) -> list[M]:
        """The weights [out, in] of each expert, where all lie in one tensor of this whole name.

        inputs_first: where they are plain, they are stored [in, out].
        """

    def experts(
        self, up: Sequence[M], down: Sequence[M], kind: Activation, biases: ExpertBiases | None = None
    ) -> ExpertsKernel:
        """The MLPs of all experts, two matrices each: [2 · inner, hidden], gates first, and [hidden, inner].

        They must not be used afterwards.
        """
