"""What blocks of GGUF files hold: whole numbers, scales, minima. Knows no files, no names of tensors and no kernels.

Layouts as ggml's ggml-common.h and ggml-quants.c define them. A row is blocks of 32 or 256 numbers, one behind the
other; weights are number · scale - minimum, of the part of a block that a number is in. `d` and `m` stand for float16.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Numbers = tuple[Tensor, Tensor, Tensor | None]
"""Of n blocks: whole numbers [n, numbers], int8 or uint8, scales [n, parts] float32, and minima likewise if any."""

LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""What 4 bits stand for in types IQ4."""


@dataclass(frozen=True, slots=True)
class Block:
    """A type of blocks. bits: 4 for uint8 numbers below 16, less `zero` or from a table; 8 for int8.

    length: bytes of one. parts: how many scales it has. read: its numbers, from blocks [n, length] uint8.
    """

    numbers: int
    length: int
    parts: int
    bits: int
    read: Callable[[Tensor], Numbers]
    zero: int = 0
    table: tuple[int, ...] | None = None


def _halves(bytes_: Tensor) -> Tensor:
    """float16 [n, 2 k] bytes to [n, k] float32."""
    return bytes_.contiguous().view(torch.float16).float()


def _nibbles(bytes_: Tensor, run: int) -> Tensor:
    """[n, k] bytes to [n, 2 k]: of each run the lower halves, then the upper ones."""
    runs = bytes_.view(len(bytes_), bytes_.shape[1] // run, 1, run)
    return torch.cat((runs & 15, runs >> 4), 2).flatten(1)


def _pairs(bytes_: Tensor) -> Tensor:
    """[n, k] bytes to [n, 4 k]: of each 32 the lowest two bits, then the next, up to the highest."""
    runs = bytes_.view(len(bytes_), bytes_.shape[1] // 32, 1, 32)
    return torch.cat([runs >> shift & 3 for shift in (0, 2, 4, 6)], 2).flatten(1)


def _bits(bytes_: Tensor) -> Tensor:
    """[n, k] bytes to [n, 8 k], of all of them the lowest bit, then the next."""
    return torch.cat([bytes_ >> shift & 1 for shift in range(8)], 1)


def _bits_in_order(bytes_: Tensor) -> Tensor:
    """[n, k] bytes to [n, 8 k], byte after byte, each from its lowest bit on."""
    return torch.stack([bytes_ >> shift & 1 for shift in range(8)], 2).flatten(1)


def _signed(numbers: Tensor, zero: int) -> Tensor:
    """Numbers below 128, less zero, int8."""
    return numbers.view(torch.int8) - zero


def _q4(has_minima: bool) -> Callable[[Tensor], Numbers]:
    """d, m if there are minima, then 4 bits: the first half of the numbers in the lower halves."""

    def read(b: Tensor) -> Numbers:
        minima = -_halves(b[:, 2:4]) if has_minima else None
        return _nibbles(b[:, 4 if has_minima else 2 :], 16), _halves(b[:, :2]), minima

    return read


def _q5(has_minima: bool) -> Callable[[Tensor], Numbers]:
    """The same, with the numbers' fifth bits before their others."""

    def read(b: Tensor) -> Numbers:
        high = 4 if has_minima else 2
        minima = -_halves(b[:, 2:4]) if has_minima else None
        numbers = _nibbles(b[:, high + 4 :], 16) | _bits_in_order(b[:, high : high + 4]) << 4
        return _signed(numbers, 0 if has_minima else 16), _halves(b[:, :2]), minima

    return read


def _q8_0(b: Tensor) -> Numbers:
    return b[:, 2:].view(torch.int8), _halves(b[:, :2]), None


def _q2_k(b: Tensor) -> Numbers:
    """Of each 16 a byte, scale and minimum; two bits; d of scales and d of minima."""
    scales, minima = b[:, :16] & 15, b[:, :16] >> 4
    return _pairs(b[:, 16:80]), scales * _halves(b[:, 80:82]), minima * _halves(b[:, 82:])


def _q3_k(b: Tensor) -> Numbers:
    """Highest bits; the other two; scales of six bits, the last two of them together; d."""
    low, high = _nibbles(b[:, 96:104], 8), b[:, 104:108]
    scales = low | torch.cat([high >> shift & 3 for shift in (0, 2, 4, 6)], 1) << 4
    return _pairs(b[:, 32:96]) | _bits(b[:, :32]) << 2, _signed(scales, 32) * _halves(b[:, 108:]), None


def _scales_and_minima(b: Tensor) -> tuple[Tensor, Tensor]:
    """Eight of each, of types 4 and 5: d of scales, d of minima, 12 bytes of six bits each."""
    first, second, third = b[:, 4:8], b[:, 8:12], b[:, 12:16]
    scales = torch.cat((first & 63, third & 15 | first >> 6 << 4), 1)
    minima = torch.cat((second & 63, third >> 4 | second >> 6 << 4), 1)
    return scales * _halves(b[:, :2]), minima * _halves(b[:, 2:4])


def _q4_k(b: Tensor) -> Numbers:
    return _nibbles(b[:, 16:], 32), *_scales_and_minima(b)


def _q5_k(b: Tensor) -> Numbers:
    """The same, with the numbers' fifth bits before their others."""
    return _signed(_nibbles(b[:, 48:], 32) | _bits(b[:, 16:48]) << 4, 0), *_scales_and_minima(b)


def _q6_k(b: Tensor) -> Numbers:
    """Four bits, 64 bytes for each half of the numbers; the other two; scales of eight bits; d."""
    low, scales = _nibbles(b[:, :128], 64), b[:, 192:208].view(torch.int8)
    return _signed(low | _pairs(b[:, 128:192]) << 4, 32), scales * _halves(b[:, 208:]), None


def _iq4_xs(b: Tensor) -> Numbers:
    """d; the upper two bits of eight scales; their lower four; four bits a number, of each 32 as in type Q4_0."""
    shifts = torch.arange(0, 16, 2, device=b.device)
    high = (b[:, 2:3].int() | b[:, 3:4].int() << 8) >> shifts & 3
    low = torch.stack((b[:, 4:8] & 15, b[:, 4:8] >> 4), 2).flatten(1)
    return _nibbles(b[:, 8:], 16), ((low | high << 4) - 32) * _halves(b[:, :2]), None


BLOCKS: Mapping[str, Block] = {
    "Q4_0": Block(32, 18, 1, 4, _q4(has_minima=False), 8),
    "Q4_1": Block(32, 20, 1, 4, _q4(has_minima=True)),
    "Q5_0": Block(32, 22, 1, 8, _q5(has_minima=False)),
    "Q5_1": Block(32, 24, 1, 8, _q5(has_minima=True)),
    "Q8_0": Block(32, 34, 1, 8, _q8_0),
    "Q2_K": Block(256, 84, 16, 4, _q2_k),
    "Q3_K": Block(256, 110, 16, 4, _q3_k, 4),
    "Q4_K": Block(256, 144, 8, 4, _q4_k),
    "Q5_K": Block(256, 176, 8, 8, _q5_k),
    "Q6_K": Block(256, 210, 16, 8, _q6_k),
    "IQ4_NL": Block(32, 18, 1, 4, _q4(has_minima=False), table=LEVELS),
    "IQ4_XS": Block(256, 136, 8, 4, _iq4_xs, table=LEVELS),
}
"""Of types that are multiplied with as they are, by their names; others are decoded where a file is converted."""
