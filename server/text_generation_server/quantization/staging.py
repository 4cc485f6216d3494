"""Memory in which matrices are put together before they are packed. Knows neither checkpoints nor kernels."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Staging:
    """Lends one block to one matrix after another, because memory that is new costs more than a copy into it.

    The first write to each new page stops for the kernel to clear it: 2 GB/s where copying to used pages runs at 10.
    """

    def __init__(self) -> None:
        self._idle: list[Tensor] = []

    @contextmanager
    def lend(self, shape: tuple[int, ...], dtype: torch.dtype) -> Iterator[Tensor]:
        """A tensor of any content on the CPU, until the end of the `with`. Threads that overlap get blocks each."""
        size = math.prod(shape) * dtype.itemsize
        block = self._idle.pop() if self._idle else torch.empty(0, dtype=torch.uint8)
        if block.numel() < size:
            block = torch.empty(size, dtype=torch.uint8)
        yield block[:size].view(dtype).view(shape)
        self._idle.append(block)
