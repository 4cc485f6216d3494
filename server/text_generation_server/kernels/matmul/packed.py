"""Weights of 4 or 8 bits as kernels read them, and what they stand for. Imports no Triton; knows no checkpoint.

Inputs are taken in units of 128, all outputs of one unit side by side, so that a program reads contiguous memory. Four
bits: a unit is eight slabs of 16 inputs. Words 2t and 2t + 1 of an output have the inputs 2t (low half) and 2t + 1
(high half) of the slabs 0 to 3, and 4 to 7: two weights that neighbour in a slab are the same bits of both halves of a
word, and two instructions make floating-point numbers of them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

UNIT = 128
SIZES = (128, 64, 32, 16)
"""Inputs that may share a scale."""

TILE_BYTES = 1 << 24
"""Of plain weights that are made at a time."""

_NIBBLES = 8


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """Weights [N, K]: (code[n, k] - zero[k // size, n]) · scale[k // size, n].

    words: [U, N, 16] int32 of codes of 4 bits, or [U, N, 128] int8 or float8, where U units hold the K inputs.
    scales: [G, N] of any floating type. zeros: the same shape and a floating type; None where all are `zero`.
    table: [16] float32, what codes of 4 bits stand for, None for themselves.
    dtype: of the rows that are multiplied. inputs: K.
    """

    words: Tensor
    scales: Tensor
    zeros: Tensor | None
    zero: int
    size: int
    inputs: int
    dtype: torch.dtype
    table: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """[N, K]."""
        return self.words.shape[1], self.inputs

    @property
    def bits(self) -> int:
        """Of a code."""
        return 4 if self.words.dtype is torch.int32 else 8

    @property
    def nbytes(self) -> int:
        """What one product reads."""
        return self.words.nbytes + self.scales.nbytes + (0 if self.zeros is None else self.zeros.nbytes)

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.words.device

    def with_outputs(self, choose: Callable[[Tensor], Tensor]) -> Self:
        """Others of the outputs, which are the second axis of every tensor."""
        zeros = None if self.zeros is None else choose(self.zeros)
        return replace(self, words=choose(self.words), scales=choose(self.scales), zeros=zeros)

    def plain(self, dtype: torch.dtype, outputs: slice = slice(None)) -> Tensor:
        """[n, K], the weights of these outputs, computed in float32 and rounded once."""
        codes = unpacked(self.words[:, outputs])
        values = codes.float() if self.table is None else self.table[codes.long()]
        values = values.view(len(values), -1, self.size)
        values -= self.zero if self.zeros is None else self.zeros[:, outputs].T.float()[..., None]
        values *= self.scales[:, outputs].T.float()[..., None]
        return values.view(len(values), -1)[:, : self.inputs].to(dtype)

    def tiles(self) -> Iterator[slice]:
        """All outputs, in ranges whose plain weights need little memory."""
        outputs = max(1, TILE_BYTES // (4 * self.inputs))
        return (slice(at, at + outputs) for at in range(0, self.shape[0], outputs))


def multiply(x: Tensor, weight: PackedWeight, bias: Tensor | None) -> Tensor:
    """x [m, K] · weight [N, K]ᵀ + bias [N], by plain weights that are made a tile at a time: the kernels' twin."""
    parts = [F.linear(x, weight.plain(x.dtype, tile), None if bias is None else bias[tile]) for tile in weight.tiles()]
    return torch.cat(parts, -1)


def packed(codes: Tensor) -> Tensor:
    """Codes [N, 128 · U] of 4 bits to words [U, N, 16] int32."""
    # [N, U, which of two words, slab of four, pair, one of the pair]
    apart = codes.view(len(codes), -1, 2, 4, 8, 2).permute(1, 0, 4, 2, 5, 3)
    words = torch.zeros(apart.shape[:4], dtype=torch.int32, device=codes.device)
    for nibble in range(_NIBBLES):
        words |= apart[..., nibble // 4, nibble % 4].to(torch.int32) << 4 * nibble
    return words.flatten(2)


def unpacked(words: Tensor) -> Tensor:
    """Words [U, n, …] to codes [n, 128 · U]."""
    if words.dtype is not torch.int32:
        return words.transpose(0, 1).reshape(words.shape[1], -1)
    units, outputs, _ = words.shape
    codes = torch.stack([(words >> 4 * nibble & 15).to(torch.uint8) for nibble in range(_NIBBLES)], -1)
    return codes.view(units, outputs, 8, 2, 2, 4).permute(1, 0, 3, 5, 2, 4).reshape(outputs, -1)


def packed_bytes(codes: Tensor) -> Tensor:
    """Codes [N, 128 · U] of a byte to [U, N, 128]."""
    return codes.view(len(codes), -1, UNIT).transpose(0, 1).contiguous()
