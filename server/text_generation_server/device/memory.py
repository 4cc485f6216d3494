"""How much memory a cache may take on this rank's device. Knows nothing of models or batches."""

import os
import resource
from pathlib import Path

import torch

HOST_SHARE = 0.5
"""Part of the host's free memory a CPU cache may take: the router, the page cache and other programs live there too."""

_CGROUP = Path("/sys/fs/cgroup")


def available_bytes(device: torch.device, world_size: int, memory_fraction: float, reclaimable: int) -> int:
    """Bytes this rank may give to a cache; `reclaimable` are in use now and will be given back before.

    On CUDA `memory_fraction` is the share of the whole device that the process may use; on a CPU it scales `HOST_SHARE`
    of the free memory, divided among the ranks (docs/protocol.md#warming-up).
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(device)
        return max(0, int(free + reclaimable - (1 - memory_fraction) * total))
    return int((_free_host_bytes() / world_size + reclaimable) * HOST_SHARE * memory_fraction)


def bytes_used(device: torch.device) -> int:
    """What is taken of a CUDA device, by whomever; 0 for others."""
    if device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    return total - free


class PeakMemory:
    """Measures how much a piece of work needs at its peak beyond what stays allocated afterwards."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            _reset_host_peak()

    def transient_bytes(self) -> int:
        """Peak since construction minus what is in use now."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - torch.cuda.memory_allocated(self._device)
        return max(0, _status_bytes("VmHWM") - _status_bytes("VmRSS"))


def _free_host_bytes() -> int:
    """Free memory of the host, or of the control group that limits this process."""
    free = _proc_bytes(Path("/proc/meminfo"), "MemAvailable")
    if free is None:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    limit, used = (_read_number(_CGROUP / name) for name in ("memory.max", "memory.current"))
    return free if limit is None or used is None else min(free, limit - used)


def _reset_host_peak() -> None:
    """Make the kernel forget the process's peak, where it can; otherwise the peak since its start counts."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


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
