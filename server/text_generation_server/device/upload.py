"""Brings a step's integers to the device in one copy that nobody waits for. Knows nothing of what they mean."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Integers = Sequence[int] | NDArray[np.int64]

_FILLING = (0,)


def upload(device: torch.device, *lists: Integers) -> list[Tensor]:
    """Copies [len] int64 of the lists, parts of one tensor on the device, each from a multiple of 16 bytes on.

    Kernels are compiled once for numbers that begin there, and once more, while requests wait, for others.
    The pinned buffer that a copy reads may be dropped at once: the allocator does not lend it again before.
    """
    parts = [part for numbers in lists for part in (numbers, _FILLING[: len(numbers) % 2])]
    host = packed(*parts, pinned=device.type == "cuda")
    return list(torch.split(host.to(device, non_blocking=True), [len(part) for part in parts])[::2])


def packed(*lists: Integers, pinned: bool) -> Tensor:
    """The lists one after the other [total] int64, on the host."""
    host = torch.empty(sum(map(len, lists)), dtype=torch.int64, pin_memory=pinned)
    np.concatenate([np.asarray(numbers, dtype=np.int64) for numbers in lists], out=host.numpy())
    return host
