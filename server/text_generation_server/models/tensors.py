"""Reads one rank's part of linears, vectors and tables, as a builder asks for it. Knows no spec, counts no ranks."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.distributed.group import TensorParallel
from text_generation_server.layers.linear import (
    Adaptable,
    ColumnParallelLinear,
    LinearKernel,
    LinearSlice,
    RowParallelLinear,
)
from text_generation_server.quantization.base import Matrix, QuantScheme
from text_generation_server.quantization.dense import DenseScheme, PlainLinear
from text_generation_server.weights.checkpoint import Checkpoint
from text_generation_server.weights.layout import Partition, Place


@dataclass(frozen=True, slots=True)
class StoredLinear:
    """A linear of the checkpoint: `name` has no suffix, `outputs` and `inputs` are those of the whole model."""

    name: str
    outputs: int
    inputs: int


class TensorReader:
    """A checkpoint with linears of one form, and what is plain in every form. transposed: linears stored [in, out].

    linears: what adapters may change of layers that have been read, by whichever thread. scheme, dense: of the linears'
    form, and of what is plain. aliases: see `specs/names.py`.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        scheme: QuantScheme[Any],
        plain: DenseScheme,
        transposed: bool,
        aliases: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.checkpoint = checkpoint
        self.dtype = plain.dtype
        self.device = plain.device
        self.linears: list[Adaptable] = []
        self.scheme = scheme
        self.dense = plain
        self._transposed = transposed
        self._aliases = tuple(aliases)

    def offer(self, *linears: Adaptable) -> None:
        """Let adapters change these."""
        for linear in linears:
            linear.aliases = self._aliases
        self.linears += linears

    def widened(self) -> "TensorReader":
        """What reads the same checkpoint to be computed with in float32, in plain form."""
        wide = DenseScheme(torch.float32, self.device)
        return TensorReader(self.checkpoint, wide, wide, self._transposed)

    def plain(self) -> "TensorReader":
        """What reads parts of the same checkpoint that are plain in every form of it, and take no adapters."""
        plain = DenseScheme(self.dtype, self.device)
        return TensorReader(self.checkpoint, plain, plain, False)

    def unadapted(self) -> "TensorReader":
        """What reads parts of the same checkpoint that take no adapters."""
        return TensorReader(self.checkpoint, self.scheme, self.dense, self._transposed)

    def column(self, stored: Sequence[StoredLinear], places: Sequence[Place], has_bias: bool) -> ColumnParallelLinear:
        """One linear from pieces of linears of the same input: the outputs of a rank."""
        matrices = [self.matrix(linear) for linear in stored]
        pieces = [
            matrices[place.tensor].select_out(place.rows).pad(place.padded, stored[place.tensor].inputs)
            for place in places
        ]
        kernel = pieces[0].join_out(pieces[1:]).finish(self._joined_bias(stored, places) if has_bias else None)
        linear = ColumnParallelLinear(kernel, slices_of(stored, places))
        self.offer(linear)
        return linear

    def row(
        self, stored: StoredLinear, places: Sequence[Place], has_bias: bool, group: TensorParallel
    ) -> RowParallelLinear:
        """A linear from pieces of another's inputs. The ranks' outputs are summed, so only the first adds the bias."""
        first = group.rank == 0
        if has_bias and not first:
            self.checkpoint.leave(f"{stored.name}.bias")
        matrix = self.matrix(stored)
        pieces = [matrix.select_in(place.rows).pad(stored.outputs, place.padded) for place in places]
        bias = self.vector(f"{stored.name}.bias", stored.outputs) if has_bias and first else None
        kernel = pieces[0].join_in(pieces[1:]).finish(bias)
        linear = RowParallelLinear(kernel, slices_of([stored], places), group)
        self.offer(linear)
        return linear

    def head(
        self,
        stored: StoredLinear,
        mine: Partition,
        bias: str | None,
        normalised: bool,
        more: StoredLinear | None = None,
    ) -> LinearKernel:
        """A part of the output head's rows, never transposed; normalised: each divided by its length, always plain.

        more: has rows behind those; both are plain in every form of a checkpoint.
        """
        shape = stored.outputs, stored.inputs
        if normalised:
            weight = self.checkpoint.view(f"{stored.name}.weight", shape)
            lengths = torch.linalg.vector_norm(weight, dim=1, keepdim=True, dtype=torch.float32)
            return self._finished_head(self.dense.matrix(weight / lengths), stored, mine, bias)
        if more is not None:
            parts = [self.checkpoint.view(f"{one.name}.weight", (one.outputs, one.inputs)) for one in (stored, more)]
            return self._finished_head(self.dense.matrix(torch.cat(parts)), stored, mine, bias)
        return self._finished_head(self.scheme.head(self.checkpoint, stored.name, shape), stored, mine, bias)

    def tied_head(self, table: Tensor, stored: StoredLinear, mine: Partition, bias: str | None) -> LinearKernel:
        """An embedding as output head. Where the table is on an accelerator, the head shares its memory."""
        if table.device.type == "cpu":
            plain = self.dense.head(self.checkpoint, stored.name, (stored.outputs, stored.inputs))
            return self._finished_head(plain, stored, mine, bias)
        return self.dense.kernel(table, self._head_bias(bias, stored.outputs, mine))

    def _finished_head(self, matrix: Matrix, stored: StoredLinear, mine: Partition, bias: str | None) -> LinearKernel:
        part = matrix.select_out(mine.rows).pad(mine.padded, stored.inputs)
        return part.finish(self._head_bias(bias, stored.outputs, mine))

    def whole(self, stored: StoredLinear, has_bias: bool = False) -> LinearKernel:
        """A linear that every rank holds whole. Never transposed."""
        weight = self.checkpoint.view(f"{stored.name}.weight", (stored.outputs, stored.inputs))
        return self.dense.matrix(weight).finish(
            self.vector(f"{stored.name}.bias", stored.outputs) if has_bias else None
        )

    def convolution(self, name: str, shape: tuple[int, int, int, int], has_bias: bool, frames: int = 0) -> LinearKernel:
        """A convolution [out, channels, height, width] of patches that do not overlap, as a linear of them.

        frames: that it is of, [out, channels, frames, height, width], where all frames are to be the same; 0 for none.
        Every rank holds it whole.
        """
        whole = (*shape[:2], frames, *shape[2:]) if frames else shape
        weight = self.checkpoint.view(f"{name}.weight", whole)
        if frames:
            weight = weight.float().sum(2)
        return self.dense.matrix(weight.flatten(1)).finish(self.vector(f"{name}.bias", shape[0]) if has_bias else None)

    def small(self, stored: StoredLinear, other: str = "", has_bias: bool = False) -> ColumnParallelLinear:
        """A linear of few outputs that every rank multiplies whole and plain. other: its name."""
        shape = stored.outputs, stored.inputs
        bias = self.vector(f"{stored.name}.bias", stored.outputs) if has_bias else None
        kernel = PlainLinear(self.scheme.small(self.checkpoint, stored.name, shape), bias)
        linear = ColumnParallelLinear(kernel, [LinearSlice(stored.name, shape, slice(0, stored.outputs), 0, other)])
        self.offer(linear)
        return linear

    def vector(self, name: str, size: int) -> Tensor:
        """A whole tensor [size]."""
        return self.tensor(name, (size,))

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A whole tensor of this shape."""
        return self._own(self.checkpoint.view(name, shape))

    def part(self, name: str, shape: tuple[int, ...], mine: Partition) -> Tensor:
        """A rank's part of the first dimension, zeros behind, in float32: for what is computed with in that alone."""
        rows = self.checkpoint.view(name, shape)[mine.rows]
        whole = torch.zeros(mine.padded, *shape[1:], device=self.device)
        whole[: len(rows)] = rows
        return whole

    def pieces(self, name: str, shape: tuple[int, ...], rows: Sequence[slice]) -> Tensor:
        """Some of a tensor's first dimension, one behind the other, in float32: see `part`."""
        view = self.checkpoint.view(name, shape)
        return torch.cat([view[some] for some in rows]).to(self.device, torch.float32)

    def table(self, stored: Sequence[tuple[str, int]], width: int, mine: Partition) -> Tensor:
        """A rank's rows of an embedding [size, width], or of several of these names and sizes, one behind the other.

        On a CPU it stays in its mapped file, in the file's type: a step reads a few rows of it, so memory holds those
        that are used, not a second copy of what is often the output head as well.
        """
        views = [self.checkpoint.view(f"{name}.weight", (size, width)) for name, size in stored]
        rows = (views[0] if len(views) == 1 else torch.cat(views))[mine.rows]
        if self.device.type == "cpu":
            return rows
        whole = torch.empty(mine.padded, width, dtype=self.dtype, device=self.device)
        self.dense.upload(rows, whole[: len(rows)])
        whole[len(rows) :] = 0
        return whole

    def _head_bias(self, name: str | None, size: int, mine: Partition) -> Tensor | None:
        if name is None:
            return None
        bias = self.checkpoint.view(name, (size,))[mine.rows]
        return self._own(F.pad(bias, (0, mine.padded - len(bias))))

    def matrix(self, linear: StoredLinear) -> Any:
        """The weights of a linear, in its form."""
        shape = linear.outputs, linear.inputs
        return self.scheme.read(self.checkpoint, linear.name, shape, self._transposed)

    def _joined_bias(self, stored: Sequence[StoredLinear], places: Sequence[Place]) -> Tensor:
        biases = [self.checkpoint.view(f"{linear.name}.bias", (linear.outputs,)) for linear in stored]
        pieces = [biases[place.tensor][place.rows] for place in places]
        padded = [F.pad(piece, (0, place.padded - len(piece))) for piece, place in zip(pieces, places, strict=True)]
        return self._own(torch.cat(padded))

    def _own(self, view: Tensor) -> Tensor:
        """A copy that keeps no file mapped."""
        own = torch.empty(view.shape, dtype=self.dtype, device=self.device)
        self.dense.upload(view, own)
        return own


def slices_of(stored: Sequence[StoredLinear], places: Sequence[Place]) -> list[LinearSlice]:
    """What adapters have to know of a linear that these pieces are put together into."""
    starts = accumulate((place.padded for place in places), initial=0)
    slices = []
    for place, start in zip(places, starts, strict=False):
        linear = stored[place.tensor]
        slices.append(LinearSlice(linear.name, (linear.outputs, linear.inputs), place.rows, start))
    return slices
