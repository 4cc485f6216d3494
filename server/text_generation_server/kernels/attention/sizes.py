"""How attention kernels cut their work, by numbers that the host knows before a step. Knows no kernel's code."""

from dataclasses import dataclass
from functools import cache

import torch
import triton

PROGRAMS_EACH = 4
"""Programs for each multiprocessor that rows are split into where they are few."""

MOST_PARTS = 32
"""Of a row: more take longer to merge than they save."""

FEWEST_KEYS = 64
"""Of a program where rows are split."""

FEW_HEADS, MANY_HEADS = 16, 32
"""Rows of matrix products of query heads that share keys; tensor cores take no fewer."""

NARROWEST = 16
"""Numbers of a head in products: tensor cores take no fewer."""

MERGED_NUMBERS = 1 << 12
"""Of partial results that are merged at a time: what registers hold."""


DECODE_STAGES = 2
"""Blocks of keys in flight or in use. With three, fewer programs share a multiprocessor, which takes longer (H100)."""


def padded_width(head_dim: int) -> int:
    """Numbers of a head with the zeros behind it, as kernels compute it."""
    return max(NARROWEST, int(triton.next_power_of_2(head_dim)))


@dataclass(frozen=True, slots=True)
class KVSplit:
    """How a row's keys are split. parts: programs that may share them. keys: fewest that one takes, if there are."""

    parts: int
    keys: int

    @classmethod
    def of(cls, rows: int, heads: int, kv_heads: int, device: torch.device) -> "KVSplit":
        """For steps of as many rows, so that all multiprocessors have some programs when the rows are long."""
        programs = rows * kv_heads * triton.cdiv(heads // kv_heads, MANY_HEADS)
        wanted = PROGRAMS_EACH * multiprocessors(device)
        fitting = max(1, min(MOST_PARTS, wanted // programs))
        # A power of two: a kernel is compiled for each number of parts, while requests wait.
        return cls(parts=1 << (fitting.bit_length() - 1), keys=FEWEST_KEYS)


@cache
def multiprocessors(device: torch.device) -> int:
    """Of a device; where kernels are interpreted, one."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


@dataclass(frozen=True, slots=True)
class DecodeTile:
    """What a program works on. heads, keys, width: at a time, powers of two. merged: heads and splits of a merge."""

    heads: int
    keys: int
    width: int
    merged: tuple[int, int]

    @classmethod
    def of(cls, group: int, head_dim: int, narrow: bool = False) -> "DecodeTile":
        """For groups of query heads of a key head. narrow: keys of 8 bits, of which twice as many are in flight."""
        width = padded_width(head_dim)
        heads = 1 if group == 1 else FEW_HEADS if group <= FEW_HEADS else MANY_HEADS
        keys = max(16, (4096 if group == 1 else 16384 if narrow else 8192) // width)
        merged_heads = min(heads, triton.next_power_of_2(group))
        splits = max(1, MERGED_NUMBERS // (merged_heads * width))
        return cls(heads, keys, width, (merged_heads, splits))


@dataclass(frozen=True, slots=True)
class PrefillTile:
    """Rows of queries and of keys that a program works on at a time, powers of two."""

    rows: int
    keys: int
    stages: int
    warps: int

    @classmethod
    def of(cls, head_dim: int, dtype: torch.dtype) -> "PrefillTile":
        """What registers and shared memory hold."""
        width = padded_width(head_dim)
        if dtype == torch.float32:
            return cls(rows=32, keys=16, stages=2, warps=4 if width <= 128 else 8)
        return cls(rows=128, keys=64, stages=3, warps=8) if width <= 128 else cls(64, 32, 2, 8)
