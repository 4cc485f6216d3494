"""The text of `--env`: versions, platform and devices, for a bug report. Imports none of what it reports."""

import platform
from collections.abc import Iterator
from importlib import metadata

from text_generation_launcher.hardware import Hardware

_PACKAGES = ("kvrun", "torch", "transformers", "tokenizers", "safetensors", "grpcio", "flashinfer-python")


def runtime_report(hardware: Hardware) -> str:
    """Lines `name: value` under a heading."""
    return "\n".join(["Runtime environment:", *(f"  {name}: {value}" for name, value in _facts(hardware))])


def _facts(hardware: Hardware) -> Iterator[tuple[str, str]]:
    yield "platform", platform.platform()
    yield "processor", f"{platform.machine()}, {hardware.cpus} usable"
    yield "python", platform.python_version()
    for package in _PACKAGES:
        yield package, _version(package)
    for index, gpu in enumerate(hardware.gpus):
        yield f"gpu {index}", f"{gpu.name}, {gpu.memory_bytes / 2**30:.1f} GiB, compute capability {gpu.capability}"
    if not hardware.gpus:
        yield "gpus", "none found by nvidia-smi"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
