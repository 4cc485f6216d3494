"""A matrix put together of pieces of linears, which are read when it is finished. Knows no form of weights.

A form says how a part of one linear is read (`Stored`), and what becomes of the parts (`Weights`).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from text_generation_server.layers.linear import LinearKernel
from text_generation_server.quantization.stacked import StackedLinear
from text_generation_server.weights.layout import Rows

PADDING = -1
"""The number of a row or a column of zeros."""


class Weights(Protocol):
    """Weights [out, in] in memory."""

    @property
    def shape(self) -> tuple[int, int]:
        """[out, in]."""

    def without(self, rows: Tensor, columns: Tensor) -> "Weights":
        """Zeros in the rows and columns where these masks [out] and [in] say so."""

    def fits(self, other: "Weights") -> bool:
        """Whether both can be in one matrix."""

    def joined(self, others: Sequence[Any]) -> "Weights":
        """The outputs of this and then of the others, which fit."""

    def plain(self) -> Tensor:
        """[out, in] in the type that is computed with."""

    def linear(self, bias: Tensor | None) -> LinearKernel:
        """What multiplies with them, which must not be used afterwards."""


class Stored(Protocol):
    """The weights [out, in] of a linear of the checkpoint."""

    @property
    def shape(self) -> tuple[int, int]:
        """[out, in]."""

    def read(self, rows: Rows, columns: Rows) -> Weights:
        """These outputs and inputs."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows [n] and columns [m] of a linear, by their numbers or `PADDING`."""

    stored: Stored
    rows: Tensor
    columns: Tensor

    def read(self) -> Weights:
        """The weights [n, m]."""
        weights = self.stored.read(as_rows(self.rows.clamp(min=0)), as_rows(self.columns.clamp(min=0)))
        no_rows, no_columns = self.rows < 0, self.columns < 0
        return weights.without(no_rows, no_columns) if no_rows.any() or no_columns.any() else weights


@dataclass(frozen=True, slots=True)
class PiecewiseMatrix:
    """Pieces of the same inputs, one above the other."""

    pieces: tuple[Piece, ...]

    @classmethod
    def whole(cls, stored: Stored) -> "PiecewiseMatrix":
        """All of a linear."""
        rows, columns = (torch.arange(size) for size in stored.shape)
        return cls((Piece(stored, rows, columns),))

    @property
    def shape(self) -> tuple[int, int]:
        """[out, in]."""
        return sum(len(piece.rows) for piece in self.pieces), len(self.pieces[0].columns)

    def select_out(self, rows: Rows) -> Self:
        """These outputs."""
        owner = torch.cat([torch.full((len(piece.rows),), at) for at, piece in enumerate(self.pieces)])[rows]
        numbers = torch.cat([piece.rows for piece in self.pieces])[rows]
        if not len(numbers):  # a rank's share of little
            return replace(self, pieces=(replace(self.pieces[0], rows=numbers),))
        runs = torch.unique_consecutive(owner, return_counts=True)
        parts = torch.split(numbers, runs[1].tolist())
        return replace(
            self,
            pieces=tuple(replace(self.pieces[at], rows=part) for at, part in zip(runs[0].tolist(), parts, strict=True)),
        )

    def select_in(self, columns: Rows) -> Self:
        """These inputs."""
        return self._with_columns(lambda piece: piece.columns[columns])

    def pad(self, outputs: int, inputs: int) -> Self:
        """Zeros behind, up to this shape."""
        rows, columns = (wanted - present for wanted, present in zip((outputs, inputs), self.shape, strict=True))
        wider = self._with_columns(lambda piece: _longer(piece.columns, columns)) if columns else self
        *before, last = wider.pieces
        return replace(wider, pieces=(*before, replace(last, rows=_longer(last.rows, rows)))) if rows else wider

    def join_out(self, others: Sequence[Self]) -> Self:
        """The outputs of this and then of the others."""
        pieces = [*self.pieces]
        for piece in (piece for other in others for piece in other.pieces):
            last = pieces[-1]
            if last.stored is piece.stored and torch.equal(last.columns, piece.columns):
                pieces[-1] = replace(last, rows=torch.cat((last.rows, piece.rows)))
            else:
                pieces.append(piece)
        return replace(self, pieces=tuple(pieces))

    def join_in(self, others: Sequence[Self]) -> Self:
        """The inputs of this and then of the others, which are cut from the same linears."""
        columns = [
            torch.cat(parts) for parts in zip(*([p.columns for p in m.pieces] for m in (self, *others)), strict=True)
        ]
        return replace(
            self, pieces=tuple(replace(piece, columns=all_) for piece, all_ in zip(self.pieces, columns, strict=True))
        )

    def finish(self, bias: Tensor | None) -> LinearKernel:
        """One kernel, or where pieces are of different forms, one for each of them."""
        parts = self.read()
        if len(parts) == 1:
            return parts[0].linear(bias)
        sizes = [part.shape[0] for part in parts]
        biases = [None] * len(parts) if bias is None else [part.contiguous() for part in torch.split(bias, sizes)]
        return StackedLinear([part.linear(own) for part, own in zip(parts, biases, strict=True)])

    def read(self) -> list[Weights]:
        """The weights, as few as can be."""
        return joined(piece.read() for piece in self.pieces)

    def _with_columns(self, columns: Callable[[Piece], Tensor]) -> Self:
        return replace(self, pieces=tuple(replace(piece, columns=columns(piece)) for piece in self.pieces))


def as_rows(numbers: Tensor) -> Rows:
    """A range where the numbers are one, so that nothing else is read of a file."""
    if len(numbers) and bool((numbers.diff() == 1).all()):
        return slice(int(numbers[0]), int(numbers[-1]) + 1)
    return numbers


def joined(parts: Iterable[Weights]) -> list[Weights]:
    """The same one above the other, those in one that can be."""
    runs: list[list[Weights]] = []
    for part in parts:
        if runs and runs[-1][0].fits(part):
            runs[-1].append(part)
        else:
            runs.append([part])
    return [first.joined(others) if others else first for first, *others in runs]


def _longer(numbers: Tensor, by: int) -> Tensor:
    return torch.cat((numbers, torch.full((by,), PADDING)))
