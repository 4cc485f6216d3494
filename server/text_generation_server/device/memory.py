"""How much memory a cache may take on this rank's device. Knows nothing of models or batches."""

import os
import resource
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import torch

HOST_SHARE = 0.5
"""Part of the host's free memory a CPU cache may take: the router, the page cache and other programs live there too."""

_CGROUP = Path("/sys/fs/cgroup")


class Memory(Protocol):
    """The memory of one device. Transient is what work needs at its peak beyond what stays allocated afterwards."""

    def available_bytes(self, world_size: int, memory_fraction: float, reclaimable: int) -> int:
        """What this rank may give to a cache; `reclaimable` bytes are in use now and will be given back before."""

    def used_bytes(self) -> int:
        """What is taken of it, by whomever, where that can be told from what else a host does; else 0."""

    def reset_peak(self) -> None:
        """Measure what is transient from now on."""

    def transient_bytes(self) -> int:
        """Peak since the reset minus what is in use now."""


class CudaMemory:
    """Of a CUDA device. `memory_fraction`: the share that the process may use (docs/protocol.md#warming-up)."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def available_bytes(self, world_size: int, memory_fraction: float, reclaimable: int) -> int:
        """See `Memory`."""
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(self._device)
        return max(0, int(free + reclaimable - (1 - memory_fraction) * total))

    def used_bytes(self) -> int:
        """See `Memory`."""
        free, total = torch.cuda.mem_get_info(self._device)
        return total - free

    def reset_peak(self) -> None:
        """See `Memory`."""
        torch.cuda.reset_peak_memory_stats(self._device)

    def transient_bytes(self) -> int:
        """See `Memory`."""
        return torch.cuda.max_memory_allocated(self._device) - torch.cuda.memory_allocated(self._device)


class HostMemory:
    """Of the host, shared by all ranks. `memory_fraction` scales `HOST_SHARE` of what is free."""

    def available_bytes(self, world_size: int, memory_fraction: float, reclaimable: int) -> int:
        """See `Memory`."""
        return int((_free_host_bytes() / world_size + reclaimable) * HOST_SHARE * memory_fraction)

    def used_bytes(self) -> int:
        """See `Memory`."""
        return 0

    def reset_peak(self) -> None:
        """See `Memory`. Where the kernel does not forget a process's peak, the one since its start counts."""
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    def transient_bytes(self) -> int:
        """See `Memory`."""
        return max(0, _status_bytes("VmHWM") - _status_bytes("VmRSS"))


def make_memory(device: torch.device) -> Memory:
    """The memory of a device."""
    return CudaMemory(device) if device.type == "cuda" else HostMemory()


def _free_host_bytes() -> int:
    """Free memory of the host, or of the control group that limits this process."""
    free = _proc_bytes(Path("/proc/meminfo"), "MemAvailable")
    if free is None:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    limit, used = (_read_number(_CGROUP / name) for name in ("memory.max", "memory.current"))
    return free if limit is None or used is None else min(free, limit - used)


def _status_bytes(key: str) -> int:
    found = _proc_bytes(Path("/proc/self/status"), key)
    return found if found is not None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _proc_bytes(path: Path, key: str) -> int | None:
    """The value of a `key:  123 kB` line, in bytes; None where the file or the line is missing."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)


def _read_number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
