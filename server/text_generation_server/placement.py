"""Where a rank computes, in which precision and with how many threads. Knows no model."""

import os
from dataclasses import dataclass

import torch

from text_generation_server.choices import Dtype
from text_generation_server.errors import InvalidSettings

BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16")
"""Names of processor features, any of which makes bfloat16 faster than float32."""


MIXED_TOKENS = {"cuda": 1024, "cpu": 256}
"""Tokens of a mixed step, by type of device. On a GPU more are computed no faster (docs/benchmarks.md#mixed-steps)."""


@dataclass(frozen=True, slots=True)
class Placement:
    """`threads` are for computing on the CPU."""

    device: torch.device
    dtype: torch.dtype
    threads: int


def place(
    rank: int, world_size: int, dtype: Dtype | None, threads: int | None, deterministic: bool = False
) -> Placement:
    """A GPU each where there are GPUs, otherwise an equal part of the processors that this process may use.

    Raises:
        InvalidSettings: there are GPUs, but fewer than ranks; or tokens are to be the same whatever the batch.
    """
    device = torch.device("cpu")
    if torch.cuda.is_available():
        if deterministic:
            raise InvalidSettings(
                "--deterministic is for CPUs: on a GPU the kernels of products and attention are chosen by the size of "
                "the step; leave it out, or hide the GPUs with CUDA_VISIBLE_DEVICES="
            )
        device = torch.device("cuda", _gpu(rank, world_size, torch.cuda.device_count()))
    chosen = default_dtype(device) if dtype is None else getattr(torch, dtype.value)
    return Placement(device, chosen, threads or max(1, len(os.sched_getaffinity(0)) // world_size))


def default_dtype(device: torch.device) -> torch.dtype:
    """float16 on a GPU; on a CPU the smallest precision it has instructions for."""
    if device.type == "cuda":
        return torch.float16
    has = torch.cpu.get_capabilities()
    return torch.bfloat16 if any(has.get(name) for name in BFLOAT16_INSTRUCTIONS) else torch.float32


def _gpu(rank: int, world_size: int, gpus: int) -> int:
    if world_size > gpus:
        raise InvalidSettings(f"WORLD_SIZE is {world_size}, but only {gpus} GPUs are visible; start fewer shards")
    return rank % gpus
