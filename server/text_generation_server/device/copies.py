"""Copies between the host and a device that nobody waits for. Knows nothing of what the numbers mean.

Where the device copies by itself, the host's side is in pinned memory. It may be dropped at once: the allocator does
not lend it again before the copy is done.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Integers = Sequence[int] | NDArray[np.int64]
Numbers = Sequence[float] | NDArray[Any]

_FILLING = (0,)


def upload(device: torch.device, *lists: Integers) -> list[Tensor]:
    """Copies [len] int64 of the lists, parts of one tensor on the device, each from a multiple of 16 bytes on.

    Kernels are compiled once for numbers that begin there, and once more, while requests wait, for others.
    """
    parts = [part for numbers in lists for part in (numbers, _FILLING[: len(numbers) % 2])]
    copy = _joined(parts, device).to(device, non_blocking=True)
    return list(torch.split(copy, [len(part) for part in parts])[::2])


def fill(place: Tensor, *lists: Integers) -> None:
    """Let the lists, one after the other, be the first numbers of a contiguous int64 tensor on the device."""
    host = _joined(lists, place.device)
    place.view(-1)[: len(host)].copy_(host, non_blocking=True)


def to_device(values: Numbers, dtype: torch.dtype, device: torch.device) -> Tensor:
    """`values` [n] on the device."""
    return staged(values, dtype, device).to(device, non_blocking=True)


def staged(values: Numbers, dtype: torch.dtype, device: torch.device) -> Tensor:
    """`values` [n] on the host, ready to be copied to the device."""
    return torch.tensor(values, dtype=dtype, pin_memory=_copies_by_itself(device))


def to_host(values: Tensor) -> Tensor:
    """A copy on the host, filled when the device has done all that is enqueued so far; on a CPU the tensor itself."""
    if not _copies_by_itself(values.device):
        return values
    return torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)


def _joined(lists: Sequence[Integers], device: torch.device) -> Tensor:
    """The lists one after the other [total] int64, on the host, ready to be copied to the device."""
    host = torch.empty(sum(map(len, lists)), dtype=torch.int64, pin_memory=_copies_by_itself(device))
    np.concatenate([np.asarray(numbers, dtype=np.int64) for numbers in lists], out=host.numpy())
    return host


def _copies_by_itself(device: torch.device) -> bool:
    return device.type == "cuda"
