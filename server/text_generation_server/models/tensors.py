"""Reads one rank's part of linears, vectors and tables, as a builder asks for it. Knows no spec, counts no ranks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.layers.linear import LinearKernel
from text_generation_server.quantization.base import Matrix, QuantScheme
from text_generation_server.quantization.dense import DenseScheme
from text_generation_server.weights.checkpoint import Checkpoint
from text_generation_server.weights.layout import Part, Place


@dataclass(frozen=True, slots=True)
class StoredLinear:
    """A linear of the checkpoint: `name` has no suffix, `outputs` and `inputs` are those of the whole model."""

    name: str
    outputs: int
    inputs: int


class TensorReader:
    """A checkpoint with linears of one form, and what is plain in every form. transposed: linears stored [in, out]."""

    def __init__(self, checkpoint: Checkpoint, scheme: QuantScheme, plain: DenseScheme, transposed: bool) -> None:
        self.checkpoint = checkpoint
        self.dtype = plain.dtype
        self.device = plain.device
        self._scheme = scheme
        self._plain = plain
        self._transposed = transposed

    def column(self, stored: Sequence[StoredLinear], places: Sequence[Place], has_bias: bool) -> LinearKernel:
        """One kernel from pieces of linears of the same input: the outputs of a rank."""
        matrices = [self._matrix(linear) for linear in stored]
        pieces = [
            matrices[place.tensor].select_out(place.rows).pad(place.padded, stored[place.tensor].inputs)
            for place in places
        ]
        return pieces[0].join_out(pieces[1:]).finish(self._joined_bias(stored, places) if has_bias else None)

    def row(self, stored: StoredLinear, places: Sequence[Place], has_bias: bool) -> LinearKernel:
        """A kernel for pieces of a linear's inputs."""
        matrix = self._matrix(stored)
        pieces = [matrix.select_in(place.rows).pad(stored.outputs, place.padded) for place in places]
        bias = self.vector(f"{stored.name}.bias", stored.outputs) if has_bias else None
        return pieces[0].join_in(pieces[1:]).finish(bias)

    def head(self, stored: StoredLinear, mine: Part, bias: str | None, normalised: bool) -> LinearKernel:
        """A part of the output head's rows; normalised: each divided by its length.

        Heads are plain in every form of checkpoint, and never transposed.
        """
        weight = self.checkpoint.view(f"{stored.name}.weight", (stored.outputs, stored.inputs))[mine.rows]
        if normalised:
            weight = weight / torch.linalg.vector_norm(weight, dim=1, keepdim=True, dtype=torch.float32)
        matrix = self._plain.matrix(weight).pad(mine.padded, stored.inputs)
        return matrix.finish(self._head_bias(bias, stored.outputs, mine))

    def tied_head(self, table: Tensor, stored: StoredLinear, mine: Part, bias: str | None) -> LinearKernel:
        """An embedding as output head. Where the table is on an accelerator, the head shares its memory."""
        if table.device.type == "cpu":
            return self.head(stored, mine, bias, normalised=False)
        return self._plain.kernel(table, self._head_bias(bias, stored.outputs, mine))

    def whole(self, stored: StoredLinear) -> LinearKernel:
        """A linear without bias that every rank holds whole. Never transposed."""
        weight = self.checkpoint.view(f"{stored.name}.weight", (stored.outputs, stored.inputs))
        return self._plain.matrix(weight).finish(None)

    def experts_up(self, names: Sequence[str], experts: int, inner_size: int, inputs: int, mine: Part) -> Tensor:
        """Parts of the outputs of all experts' linears of the same input: [experts, len(names) · padded, inputs].

        Names have a place for the expert's number, or are of one tensor [experts · inner_size, inputs].
        """
        stack = torch.empty(experts, len(names), mine.padded, inputs, dtype=self.dtype, device=self.device)
        stack[:, :, mine.stop - mine.start :] = 0
        for index, name in enumerate(names):
            for expert, weight in enumerate(self._expert_views(name, experts, (inner_size, inputs))):
                stack[expert, index, : mine.stop - mine.start] = weight[mine.rows]
        return stack.flatten(1, 2)

    def experts_down(self, name: str, experts: int, inner_size: int, outputs: int, mine: Part) -> Tensor:
        """Parts of the inputs of all experts' linears: [experts, outputs, padded]. A tensor of all is transposed."""
        stack = torch.empty(experts, outputs, mine.padded, dtype=self.dtype, device=self.device)
        stack[:, :, mine.stop - mine.start :] = 0
        shape = (outputs, inner_size) if "{}" in name else (inner_size, outputs)
        for expert, weight in enumerate(self._expert_views(name, experts, shape)):
            weight = weight if "{}" in name else weight.T
            stack[expert, :, : mine.stop - mine.start] = weight[:, mine.rows]
        return stack

    def _expert_views(self, name: str, experts: int, shape: tuple[int, int]) -> Iterator[Tensor]:
        if "{}" in name:
            return (self.checkpoint.view(name.format(expert), shape) for expert in range(experts))
        every = self.checkpoint.view(name, (experts * shape[0], shape[1])).view(experts, *shape)
        return (every[expert] for expert in range(experts))

    def vector(self, name: str, size: int) -> Tensor:
        """A whole tensor [size]."""
        return self.tensor(name, (size,))

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A whole tensor of this shape."""
        return self._own(self.checkpoint.view(name, shape))

    def table(self, name: str, size: int, width: int, mine: Part) -> Tensor:
        """A rank's rows of an embedding [size, width].

        On a CPU it stays in its mapped file, in the file's type: a step reads a few rows of it, so memory holds those
        that are used, not a second copy of what is often the output head as well.
        """
        rows = self.checkpoint.view(f"{name}.weight", (size, width))[mine.rows]
        if self.device.type == "cpu":
            return rows
        return self._own(F.pad(rows, (0, 0, 0, mine.padded - rows.shape[0])))

    def _head_bias(self, name: str | None, size: int, mine: Part) -> Tensor | None:
        if name is None:
            return None
        bias = self.checkpoint.view(name, (size,))[mine.rows]
        return self._own(F.pad(bias, (0, mine.padded - len(bias))))

    def _matrix(self, linear: StoredLinear) -> Matrix:
        if self._transposed:
            return self._scheme.read(self.checkpoint, linear.name, (linear.inputs, linear.outputs)).transpose()
        return self._scheme.read(self.checkpoint, linear.name, (linear.outputs, linear.inputs))

    def _joined_bias(self, stored: Sequence[StoredLinear], places: Sequence[Place]) -> Tensor:
        biases = [self.checkpoint.view(f"{linear.name}.bias", (linear.outputs,)) for linear in stored]
        pieces = [biases[place.tensor][place.rows] for place in places]
        padded = [F.pad(piece, (0, place.padded - len(piece))) for piece, place in zip(pieces, places, strict=True)]
        return self._own(torch.cat(padded))

    def _own(self, view: Tensor) -> Tensor:
        """A copy that keeps no file mapped."""
        return torch.empty(view.shape, dtype=self.dtype, device=self.device).copy_(view)
