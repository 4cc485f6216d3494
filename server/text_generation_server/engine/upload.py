"""Brings a step's integers to the device in one copy that nobody waits for. Knows nothing of what they mean."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Integers = Sequence[int] | NDArray[np.int64]


def upload(device: torch.device, *lists: Integers) -> list[Tensor]:
    """Copies [len] int64 of the lists, parts of one tensor on the device.

    The pinned buffer that a copy reads may be dropped at once: the allocator does not lend it again before.
    """
    host = packed(*lists, pinned=device.type == "cuda")
    return list(torch.split(host.to(device, non_blocking=True), [len(numbers) for numbers in lists]))


def packed(*lists: Integers, pinned: bool) -> Tensor:
    """The lists one after the other [total] int64, on the host."""
    host = torch.empty(sum(map(len, lists)), dtype=torch.int64, pin_memory=pinned)
    np.concatenate([np.asarray(numbers, dtype=np.int64) for numbers in lists], out=host.numpy())
    return host
