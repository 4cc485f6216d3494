"""Reads one rank's part of linears, vectors and tables, as a builder asks for it. Knows no spec, counts no ranks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.quantization.base import LinearKernel, Matrix, QuantScheme
from text_generation_server.quantization.dense import DenseMatrix, dense_kernel
from text_generation_server.weights.checkpoint import Checkpoint
from text_generation_server.weights.layout import Part, Place


@dataclass(frozen=True, slots=True)
class StoredLinear:
    """A linear of the checkpoint: `name` has no suffix, `outputs` and `inputs` are those of the whole model."""

    name: str
    outputs: int
    inputs: int


class TensorReader:
    """A checkpoint with linears of one form, for computing in `dtype` on `device`. transposed: stored [in, out]."""

    def __init__(
        self, checkpoint: Checkpoint, scheme: QuantScheme, dtype: torch.dtype, device: torch.device, transposed: bool
    ) -> None:
        self.checkpoint = checkpoint
        self.dtype = dtype
        self.device = device
        self._scheme = scheme
        self._transposed = transposed

    def column(self, stored: Sequence[StoredLinear], places: Sequence[Place], has_bias: bool) -> LinearKernel:
        """One kernel from pieces of linears of the same input: the outputs of a rank."""
        matrices = [self._matrix(linear) for linear in stored]
        pieces = [
            matrices[place.tensor].select_out(place.rows).pad(place.padded, stored[place.tensor].inputs)
            for place in places
        ]
        return pieces[0].join_out(pieces[1:]).finish(self._joined_bias(stored, places) if has_bias else None)

    def row(self, stored: StoredLinear, mine: Part, has_bias: bool) -> LinearKernel:
        """A kernel for a part of a linear's inputs."""
        matrix = self._matrix(stored).select_in(mine.rows).pad(stored.outputs, mine.padded)
        return matrix.finish(self.vector(f"{stored.name}.bias", stored.outputs) if has_bias else None)

    def head(self, stored: StoredLinear, mine: Part) -> LinearKernel:
        """A part of the output head's rows. Heads are plain in every form of checkpoint, and never transposed."""
        weight = self.checkpoint.view(f"{stored.name}.weight", (stored.outputs, stored.inputs))
        plain = DenseMatrix(weight, self.dtype, self.device)
        return plain.select_out(mine.rows).pad(mine.padded, stored.inputs).finish(None)

    def tied_head(self, table: Tensor, stored: StoredLinear, mine: Part) -> LinearKernel:
        """An embedding as output head. Where the table is on an accelerator, the head shares its memory."""
        return self.head(stored, mine) if table.device.type == "cpu" else dense_kernel(table, None)

    def vector(self, name: str, size: int) -> Tensor:
        """A whole tensor [size]."""
        return self._own(self.checkpoint.view(name, (size,)))

    def table(self, name: str, size: int, width: int, mine: Part) -> Tensor:
        """A rank's rows of an embedding [size, width].

        On a CPU it stays in its mapped file, in the file's type: a step reads a few rows of it, so memory holds those
        that are used, not a second copy of what is often the output head as well.
        """
        rows = self.checkpoint.view(f"{name}.weight", (size, width))[mine.rows]
        if self.device.type == "cpu":
            return rows
        return self._own(F.pad(rows, (0, 0, 0, mine.padded - rows.shape[0])))

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
