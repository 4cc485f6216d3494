"""What plain weights are made into while they are read, by --quantize.

eetq, bitsandbytes: int8, a scale an output. bitsandbytes computes inputs beyond a threshold apart, to keep what
rounding them would lose; here no input is rounded, so that nothing is to be kept. fp8: e4m3 likewise; rows are rounded
too where a device computes so. bitsandbytes-nf4 (arXiv 2305.14314), -fp4: 4 bits that stand for 16 numbers, a scale for
64 inputs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from text_generation_server.quantization.coded import Coded
from text_generation_server.quantization.dense import DenseScheme
from text_generation_server.quantization.plain import PlainStored
from text_generation_server.weights.checkpoint import Checkpoint
from text_generation_server.weights.layout import Rows

NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""Quantiles of a normal distribution, with a zero."""

_POSITIVE = (0.0, 0.0625 / 12, 8 / 12, 1.0, 4 / 12, 6 / 12, 2 / 12, 3 / 12)
FP4 = (*_POSITIVE, *(-value for value in _POSITIVE))
"""A sign, two bits of exponent and one of mantissa, as bitsandbytes numbers them."""

BLOCK = 64
LARGEST_INT8, LARGEST_FLOAT8 = 127.0, 448.0
SMALLEST_SCALE = 1e-12

Make = Callable[[Tensor, DenseScheme], Coded]
"""Of weights [out, in] float32."""


@dataclass(frozen=True, slots=True)
class Made:
    """Satisfies `Format`."""

    make: Make
    dense: DenseScheme
    heads: bool = False

    def find(self, checkpoint: Checkpoint, name: str, shape: tuple[int, int], transposed: bool) -> "MadeLinear":
        """See `Format`."""
        return MadeLinear(self.make, PlainStored(checkpoint, name, shape, transposed, self.dense))


@dataclass(frozen=True, slots=True)
class MadeLinear:
    """Satisfies `Stored`."""

    make: Make
    stored: PlainStored

    @property
    def shape(self) -> tuple[int, int]:
        """[out, in]."""
        return self.stored.shape

    def read(self, rows: Rows, columns: Rows) -> Coded:
        """See `Stored`."""
        plain = self.stored.read(rows, columns)
        return self.make(plain.weight.to(plain.dense.device).float(), plain.dense)


def int8(weight: Tensor, dense: DenseScheme) -> Coded:
    """To the nearest of 255 numbers an output."""
    scales = _largest(weight, 1) / LARGEST_INT8
    codes = (weight / scales).round().to(torch.int8)
    return Coded(codes, scales, torch.zeros(weight.shape[1], dtype=torch.int64), dense, bits=8)


def float8(weight: Tensor, dense: DenseScheme) -> Coded:
    """The same of floats."""
    scales = _largest(weight, 1) / LARGEST_FLOAT8
    codes = (weight / scales).clamp(-LARGEST_FLOAT8, LARGEST_FLOAT8).to(torch.float8_e4m3fn)
    return Coded(codes, scales, torch.zeros(weight.shape[1], dtype=torch.int64), dense, bits=8, rounds=True)


def of_table(values: Sequence[float]) -> Make:
    """To the nearest of these numbers, for blocks of inputs."""

    def make(weight: Tensor, dense: DenseScheme) -> Coded:
        table = torch.tensor(values, device=weight.device)
        groups = torch.arange(weight.shape[1]) // BLOCK
        blocks = torch.nn.functional.pad(weight, (0, -weight.shape[1] % BLOCK)).view(len(weight), -1, BLOCK)
        scales = _largest(blocks, 2)
        ordered, places = table.sort()
        between = (ordered[1:] + ordered[:-1]) / 2
        codes = places[torch.bucketize(blocks / scales, between)].to(torch.uint8).flatten(1)[:, : weight.shape[1]]
        return Coded(codes, scales[..., 0], groups, dense, bits=4, table=table)

    return make


def _largest(values: Tensor, axis: int) -> Tensor:
    return values.abs().amax(axis, keepdim=True).clamp(min=SMALLEST_SCALE)
