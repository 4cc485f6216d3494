"""Gathers the slots of a step's rows, one row after another, as attention kernels read them. Knows no cache.

Twin: `torch.cat([table[row, :count] for row, count in ...])`, which the host would need the counts for.
"""

import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.dependent_launch import overlaps

BLOCK = 1024
PROGRAMS = 2048
"""About as many as a large GPU runs at once; a row's share of them strides over it."""


@triton.jit
def _gather_slots(
    table: tl.tensor,
    rows: tl.tensor,
    ends: tl.tensor,
    out: tl.tensor,
    table_stride: int,
    SIZE: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    index = tl.program_id(0)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    source = table + tl.load(rows + index) * table_stride
    first = tl.load(ends + index)
    count = tl.load(ends + index + 1) - first
    start = tl.program_id(1) * SIZE
    while start < count:
        position = start + tl.arange(0, SIZE)
        held = position < count
        slot = tl.load(source + position, mask=held, other=0)
        tl.store(out + first + position, slot.to(tl.int32), mask=held)
        start += tl.num_programs(1) * SIZE


def gather_slots(table: Tensor, rows: Tensor, ends: Tensor, out: Tensor) -> None:
    """out[ends[i] : ends[i + 1]] = table[rows[i], : ends[i + 1] − ends[i]] for each i, without asking the device.

    Args:
        table: [all rows, positions] int64, the slot of each position of each row.
        rows: [B] int64, those of the step.
        ends: [B + 1] int32, where each row's slots begin and end in `out`.
        out: int32, with room for all.
    """
    count = rows.shape[0]
    share = min(triton.cdiv(table.shape[1], BLOCK), max(1, PROGRAMS // max(1, count)))
    pdl = overlaps(table.device)
    _gather_slots[(count, share)](
        *(table, rows, ends, out, table.stride(0)), SIZE=BLOCK, PDL=pdl, launch_pdl=pdl, num_warps=4
    )
