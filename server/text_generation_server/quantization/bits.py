"""Whole numbers of few bits in words of 32, as checkpoints pack them. Knows no format and no linear.

Along one axis the bits of one number follow those of the last, least significant first; numbers of 3 bits go on in the
next word. Some formats put the numbers of each word in another order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from text_generation_server.weights.layout import Rows

WORD = 32


@dataclass(frozen=True, slots=True)
class PackedNumbers:
    """A matrix of whole numbers below 2^bits. words: int32, packed along `axis`, on any device, a view of a file.

    order: of each word, which of its places each of its numbers has; empty for their own. device: where they are read.
    """

    words: Tensor
    bits: int
    axis: int
    device: torch.device
    order: Sequence[int] = ()

    def read(self, rows: Rows, columns: Rows) -> Tensor:
        """These rows and columns of the matrix, uint8; only the words that they are in are looked at."""
        wanted = [rows, columns]
        words_of_period, period = _period(self.bits)
        first, last = as_range(wanted[self.axis], self.words.shape[self.axis] // words_of_period * period)
        start, stop = first // period, -(-last // period)
        cut = [wanted[0], wanted[1]]
        cut[self.axis] = slice(start * words_of_period, stop * words_of_period)
        numbers = unpack(self.words[cut[0]][:, cut[1]].to(self.device), self.bits, self.axis, self.order)
        wanted[self.axis] = behind(wanted[self.axis], start * period, numbers.shape[self.axis])
        return numbers[wanted[0]] if self.axis == 0 else numbers[:, wanted[1]]


def unpack(words: Tensor, bits: int, axis: int, order: Sequence[int] = ()) -> Tensor:
    """The numbers of words [n, m], uint8; `axis` becomes 32 / bits times as long."""
    words_of_period, period = _period(bits)
    moved = words.movedim(axis, -1)
    groups = moved.reshape(*moved.shape[:-1], moved.shape[-1] // words_of_period, words_of_period)
    numbers = torch.empty((*groups.shape[:-1], period), dtype=torch.uint8, device=words.device)
    for place in range(period):
        word, shift = divmod(bits * (order[place] if order else place), WORD)
        value = groups[..., word] >> shift
        if shift:
            value &= (1 << (WORD - shift)) - 1  # the sign's copies
        if shift + bits > WORD:
            value |= groups[..., word + 1] << (WORD - shift)
        numbers[..., place] = value & ((1 << bits) - 1)
    return numbers.flatten(-2).movedim(-1, axis)


def _period(bits: int) -> tuple[int, int]:
    """Words, and numbers in them, after which a number begins with a word again."""
    bits_of_period = math.lcm(bits, WORD)
    return bits_of_period // WORD, bits_of_period // bits


def as_range(wanted: Rows, size: int) -> tuple[int, int]:
    """The first of these numbers, of so many, and the one behind the last."""
    if isinstance(wanted, slice):
        start, stop, _ = wanted.indices(size)
        return start, max(start, stop)
    return (int(wanted.min()), int(wanted.max()) + 1) if len(wanted) else (0, 0)


def behind(wanted: Rows, start: int, size: int) -> Rows:
    """The same numbers in what begins at `start` and has this size."""
    if isinstance(wanted, slice):
        first, last, _ = wanted.indices(start + size)
        return slice(first - start, max(first, last) - start)
    return wanted - start
