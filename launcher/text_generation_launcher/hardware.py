"""What devices this host has, as `nvidia-smi` tells. Knows nothing of models; imports no device library."""

import os
import shutil
import subprocess
from dataclasses import dataclass

_FIELDS = "name,memory.total,compute_cap"
_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Gpu:
    """One card: its name as the driver gives it, memory in bytes, compute capability such as 8.0."""

    name: str
    memory_bytes: int
    capability: float


@dataclass(frozen=True, slots=True)
class Hardware:
    """The cards of this host, in the driver's order, and the processors this process may use."""

    gpus: tuple[Gpu, ...]
    cpus: int


def find_hardware(search_path: str) -> Hardware:
    """Ask the driver, if there is one. A driver that fails or hangs counts as none."""
    program = shutil.which("nvidia-smi", path=search_path)
    return Hardware(_query(program) if program else (), _cpus())


def _query(program: str) -> tuple[Gpu, ...]:
    command = [program, f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
        return tuple(_gpu(line) for line in answer.stdout.splitlines() if line.strip())
    except (OSError, ValueError, subprocess.SubprocessError):
        return ()


def _gpu(line: str) -> Gpu:
    name, mebibytes, capability = (field.strip() for field in line.rsplit(",", 2))
    return Gpu(name, int(mebibytes) * 2**20, float(capability))


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
