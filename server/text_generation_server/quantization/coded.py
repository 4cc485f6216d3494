"""Weights of few bits with scales for groups of inputs: what every quantised checkpoint comes to. Knows no format."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.kernels.matmul.packed import SIZES, UNIT, Code, PackedWeight, packed
from text_generation_server.layers.linear import LinearKernel
from text_generation_server.quantization.coded_kernels import coded_kernel, plain_weights
from text_generation_server.quantization.dense import DenseScheme
from text_generation_server.quantization.pieces import Weights
from text_generation_server.quantization.stacked import ArrangedLinear

LEAST_SIZE = SIZES[-1]

HOPPER = (9, 0)
"""The first compute capability whose scaled products have a scale a row."""


@dataclass(frozen=True, slots=True)
class Coded:
    """Weights [out, in]: (code - zero) · scale - minimum, of the group that an input is in.

    codes: [out, in]; uint8 of `bits` (4 or 8), or int8 or float8. scales: [out, G] of any floating type.
    zeros: [out, G] uint8, None where all are `zero`. minima: [out, G] of any floating type, None where all are 0; those
    that have them have no zeros. groups: [in] int64. table, rounds: see `PackedWeight`.
    dense: how plain weights are computed with. All but `groups` are where they are computed with.
    """

    codes: Tensor
    scales: Tensor
    groups: Tensor
    dense: DenseScheme
    bits: int
    zeros: Tensor | None = None
    zero: int = 0
    table: Tensor | None = None
    rounds: bool = False
    minima: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """[out, in]."""
        return self.codes.shape[0], self.codes.shape[1]

    def without(self, rows: Tensor, columns: Tensor) -> Self:
        """See `Weights`: no scale, for columns in a group of their own."""
        nothing = rows.to(self.scales.device)[:, None]
        scales = self.scales.masked_fill(nothing, 0)
        zeros, minima, groups = self.zeros, self.minima, self.groups
        minima = None if minima is None else minima.masked_fill(nothing, 0)
        if columns.any():
            groups = groups.masked_fill(columns, scales.shape[1])
            scales = F.pad(scales, (0, 1))
            zeros, minima = (None if values is None else F.pad(values, (0, 1)) for values in (zeros, minima))
        return replace(self, scales=scales, zeros=zeros, minima=minima, groups=groups)

    def fits(self, other: Weights) -> bool:
        """See `Weights`."""
        return (
            isinstance(other, Coded)
            and self.bits == other.bits
            and self.codes.dtype is other.codes.dtype
            and self.zero == other.zero
            and (self.minima is None) == (other.minima is None)
            and _same(self.table, other.table)
            and self.scales.dtype is other.scales.dtype
            and self.scales.shape[1] == other.scales.shape[1]
            and torch.equal(self.groups, other.groups)
        )

    def joined(self, others: Sequence[Self]) -> Self:
        """See `Weights`."""
        every = (self, *others)
        plain = all(part.zeros is None for part in every)
        return replace(
            self,
            codes=torch.cat([part.codes for part in every]),
            scales=torch.cat([part.scales for part in every]),
            zeros=None if plain else torch.cat([part._all_zeros() for part in every]),
            minima=None if self.minima is None else torch.cat([p.minima for p in every if p.minima is not None]),
        )

    def simplified(self) -> Self:
        """The same without zeros where all are the usual one."""
        usual = self.zeros is not None and bool((self.zeros == self.zero).all())
        return replace(self, zeros=None) if usual else self

    def linear(self, bias: Tensor | None) -> LinearKernel:
        """See `Weights`."""
        weight, order = self.packed()
        kernel = coded_kernel(weight, bias, self.dense.tuner)
        return kernel if order is None else ArrangedLinear(kernel, order)

    def packed(self) -> tuple[PackedWeight, Tensor | None]:
        """As kernels read them, and the order [n] in which inputs are to come: `in` stands for a zero; None for as is.

        Groups become ranges of one size, which may be cut into smaller ones.
        """
        size, places = _places(self.groups)
        order = None if places is None else places.to(self.codes.device)
        groups = self.groups if places is None else F.pad(self.groups, (0, 1), value=-1)[places]
        codes = (
            self.codes
            if order is None
            else F.pad(self.codes.view(torch.uint8), (0, 1))[:, order].view(self.codes.dtype)
        )
        inputs = codes.shape[1]
        to_unit = -inputs % UNIT
        codes = F.pad(codes.view(torch.uint8), (0, to_unit)).view(codes.dtype)
        of_range = F.pad(groups, (0, to_unit), value=-1).view(-1, size).amax(1)
        if not bool((of_range != of_range[0]).any()):
            of_range, size = of_range[:1], codes.shape[1]
        scales = F.pad(self.scales, (0, 1))[:, of_range].T.contiguous()
        zeros, minima = (
            None if values is None else F.pad(values, (0, 1))[:, of_range].T.contiguous()
            for values in (self.zeros, self.minima)
        )
        zero = self.zero
        if codes.dtype is torch.uint8 and self.bits == 8:
            codes, zero = (codes ^ 128).view(torch.int8), zero - 128
            zeros = None if zeros is None else zeros.to(torch.int16) - 128
        code = next(code for code in Code if (code.bits, code.dtype) == (self.bits, codes.dtype))
        words = packed(codes, code)
        zeros = minima if zeros is None else zeros.to(self.dense.dtype)
        rounds, dtype = self._rounds(scales), self.dense.dtype
        scales = scales.float() if rounds else scales
        table = None if self.table is None else self.table.to(dtype)
        of_weights = self.minima is not None
        weight = PackedWeight(words, code, scales, zeros, zero, size, inputs, dtype, table, rounds, of_weights)
        return weight, order

    def plain(self) -> Tensor:
        """[out, in] in the type that is computed with."""
        weight, order = self.packed()
        return as_stored(plain_weights(weight), order, self.shape[1])

    def _rounds(self, scales: Tensor) -> bool:
        """Whether rows may be rounded, and the device multiplies such: with one scale an output, and sizes in 16s."""
        device, fits = scales.device, len(scales) == 1 and scales.shape[1] % 16 == 0
        return self.rounds and fits and device.type == "cuda" and torch.cuda.get_device_capability(device) >= HOPPER

    def _all_zeros(self) -> Tensor:
        if self.zeros is not None:
            return self.zeros
        return torch.full(self.scales.shape, self.zero, dtype=torch.uint8, device=self.scales.device)


def _same(table: Tensor | None, other: Tensor | None) -> bool:
    return table is other or (table is not None and other is not None and torch.equal(table, other))


def as_stored(values: Tensor, order: Tensor | None, inputs: int) -> Tensor:
    """Plain weights [out, n] whose inputs come in this order, as [out, in]."""
    if order is None:
        return values
    return values.new_zeros(len(values), inputs + 1).index_copy_(1, order, values)[:, :-1].contiguous()


def _places(groups: Tensor) -> tuple[int, Tensor | None]:
    """The largest size of ranges that lie each in one group, and the order of inputs that makes them so.

    groups: [in]. The order is [n]; `in` stands for an input of zero behind the last of a group.
    """
    order = None
    if bool((groups.diff() < 0).any()):
        order = groups.argsort(stable=True)
        groups = groups[order]
    starts = (groups.diff() != 0).nonzero()[:, 0] + 1
    for size in SIZES:
        if not bool((starts % size).any()):
            return size, order
    counts = torch.unique_consecutive(groups, return_counts=True)[1]
    padded = (counts + LEAST_SIZE - 1) // LEAST_SIZE * LEAST_SIZE
    places = torch.full((int(padded.sum()),), len(groups))
    firsts = (padded.cumsum(0) - padded) - (counts.cumsum(0) - counts)
    places[torch.arange(len(groups)) + firsts.repeat_interleave(counts)] = (
        torch.arange(len(groups)) if order is None else order
    )
    return LEAST_SIZE, places
