"""Weights of 4 or 8 bits as kernels read them, and what they stand for. Imports no Triton; knows no checkpoint.

Inputs are taken in units of 128, all outputs of a unit side by side, so that a program reads contiguous memory. A unit
is four slabs of 32 inputs with codes of 4 bits, or two of 64 with codes of 8: word c of an output has the codes of
input c of each, the first slab's in its last bits. So the codes of neighbours in a slab are at the same place of
neighbours' words, and few instructions make floating-point numbers of two of them. Codes of 8 bits have all units of an
output side by side instead: so they are also a matrix [N, K] of bytes, for products that take such, with inputs in the
order of `byte_order`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.kernels.matmul.config import Form

UNIT = 128
WORD = 16
SIZES = (128, 64, 32, 16)
"""Inputs that may share a scale."""

TILE_BYTES = 1 << 24
"""Of plain weights that are made at a time."""


class Code(Enum):
    """What stands for a weight."""

    INT4 = "int4"
    """0 to 15, by itself or as a place in a table."""
    INT8 = "int8"
    FLOAT8 = "float8"
    """Four bits of exponent, three of mantissa, no infinity."""

    @property
    def bits(self) -> int:
        """Of one."""
        return 4 if self is Code.INT4 else 8

    @property
    def dtype(self) -> torch.dtype:
        """One a byte."""
        return {Code.INT4: torch.uint8, Code.INT8: torch.int8, Code.FLOAT8: torch.float8_e4m3fn}[self]


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """Weights [N, K]: (code[n, k] - zero[k // size, n]) · scale[k // size, n].

    words: [U, N, 32 or 64] int16, where U units hold the K inputs. code: what is in them.
    scales: [G, N] of any floating type; one for all inputs if `size` is as long as the units.
    zeros: the same shape and a floating type; None where all are `zero`.
    minima: whether `zeros` are of weights instead, any numbers: (code[n, k] - zero) · scale - zeros[k // size, n].
    table: [16] of the type of rows, what codes of 4 bits stand for, None for themselves.
    rounds: whether rows may be rounded to the codes' type too, each with a scale of its own.
    dtype: of the rows that are multiplied. inputs: K.
    """

    words: Tensor
    code: Code
    scales: Tensor
    zeros: Tensor | None
    zero: int
    size: int
    inputs: int
    dtype: torch.dtype
    table: Tensor | None = None
    rounds: bool = False
    minima: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """[N, K]."""
        return self.words.shape[1], self.inputs

    @property
    def nbytes(self) -> int:
        """What one product reads."""
        return self.words.nbytes + self.scales.nbytes + (0 if self.zeros is None else self.zeros.nbytes)

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.words.device

    @property
    def form(self) -> Form:
        """What kernels are chosen by."""
        of = "rows" if len(self.scales) == 1 else self.size
        zeros = "minima" if self.minima else "zeros"
        there = {"table": self.table is not None, zeros: self.zeros is not None, "rounding": self.rounds}
        more = [word for word, is_there in there.items() if is_there]
        return Form(" ".join([f"{self.code.value} in {of}", *more]), self.code.bits, self.size)

    @property
    def bytes(self) -> Tensor:
        """[N, 128 · U] of codes of 8 bits, inputs in the order of `byte_order`."""
        return self.words.transpose(0, 1).flatten(1).view(self.code.dtype)

    def with_outputs(self, choose: Callable[[Tensor], Tensor]) -> Self:
        """Others of the outputs, which are the second axis of every tensor."""
        zeros = None if self.zeros is None else choose(self.zeros)
        return replace(self, words=choose(self.words), scales=choose(self.scales), zeros=zeros)

    def plain(self, dtype: torch.dtype, outputs: slice = slice(None)) -> Tensor:
        """[n, K], the weights of these outputs, computed in float32 and rounded once."""
        codes = unpacked(self.words[:, outputs], self.code)
        values = codes.float() if self.table is None else self.table[codes.long()].float()
        values = values.view(len(values), -1, self.size)
        zeros = None if self.zeros is None else self.zeros[:, outputs].T.float()[..., None]
        values -= self.zero if zeros is None or self.minima else zeros
        values *= self.scales[:, outputs].T.float()[..., None]
        if zeros is not None and self.minima:
            values -= zeros
        return values.view(len(values), -1)[:, : self.inputs].to(dtype)

    def tiles(self) -> Iterator[slice]:
        """All outputs, in ranges whose plain weights need little memory."""
        outputs = max(1, TILE_BYTES // (4 * self.inputs))
        return (slice(at, at + outputs) for at in range(0, self.shape[0], outputs))


Weight = Tensor | PackedWeight
"""Weights [N, K] that kernels multiply with."""


def multiply(x: Tensor, weight: PackedWeight, bias: Tensor | None) -> Tensor:
    """x [m, K] · weight [N, K]ᵀ + bias [N], by plain weights that are made a tile at a time: the kernels' twin."""
    parts = [F.linear(x, weight.plain(x.dtype, tile), None if bias is None else bias[tile]) for tile in weight.tiles()]
    return torch.cat(parts, -1)


def packed(codes: Tensor, code: Code) -> Tensor:
    """Codes [N, 128 · U] to words [U, N, 32 or 64] int16."""
    count = WORD // code.bits
    slabs = codes.view(torch.uint8).view(len(codes), -1, count, UNIT // count).transpose(0, 1)
    if code.bits == 8:
        return slabs.transpose(0, 1).transpose(2, 3).contiguous().view(torch.int16)[..., 0].transpose(0, 1)
    words = slabs[:, :, 0].to(torch.int16).contiguous()
    for slab in range(1, count):
        words |= slabs[:, :, slab].to(torch.int16) << code.bits * slab
    return words


def byte_order(units: int, device: torch.device) -> Tensor:
    """[128 · U] int64: which input each byte of a row of `PackedWeight.bytes` belongs to."""
    return torch.arange(units * UNIT, device=device).view(units, 2, UNIT // 2).transpose(1, 2).flatten()


def unpacked(words: Tensor, code: Code) -> Tensor:
    """Words [U, n, …] to codes [n, 128 · U], of the type that they are."""
    words, mask = words.transpose(0, 1), (1 << code.bits) - 1
    slabs = [(words >> shift & mask).to(torch.uint8) for shift in range(0, WORD, code.bits)]
    return torch.stack(slabs, -2).view(code.dtype).reshape(len(words), -1)
