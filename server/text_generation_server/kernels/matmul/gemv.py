"""One or two rows on CUDA cores: a program's outputs are sums over weights that are read once for all rows.

Twin: `torch.nn.functional.linear`, and `gated_activation` of it. The first weights are on their way before the kernel
in front has ended.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.dependent_launch import overlaps
from text_generation_server.kernels.matmul.config import KernelConfig
from text_generation_server.kernels.matmul.gate import gated, weight_row
from text_generation_server.kernels.matmul.low_rank import LowRank
from text_generation_server.kernels.matmul.low_rank_sums import first_halves, given, own_sums, own_ups
from text_generation_server.specs.activation import Activation

VECTOR = 8
"""Numbers that a thread reads at a time, and adds up at once where it has many sums to keep."""

MOST_APART = 2
"""Sums of a program for which a thread has registers to keep its numbers apart: they wait less for each other."""


@triton.jit
def no_tensors() -> tl.tuple:
    return ()


@triton.jit
def one_more(tensors: tl.tuple, tensor: tl.tensor) -> tl.tuple:
    """One more at the end."""
    return tensors + (tensor,)  # noqa: RUF005 (Triton unpacks no tuples)


@triton.jit(do_not_specialize=["rows", "leads"])
def _gemv(
    x: tl.tensor,
    w: tl.tensor,
    bias: tl.tensor,
    y: tl.tensor,
    x_stride: int,
    rows: int,
    outputs: int,
    low: tl.tuple,
    leads: int,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    AHEAD: tl.constexpr,
    FOLD: tl.constexpr,
    UNIT_PIECES: tl.constexpr,
    KIND: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    block = tl.program_id(0) - leads
    if low is not None and block < 0:
        first_halves(x, x_stride, rows, low, block + leads, leads, 1, UNIT_PIECES, PDL)
        return
    of_w = weight_row(block * BLOCK_N + tl.arange(0, BLOCK_N), outputs, 1, KIND)
    m = tl.arange(0, ROWS)
    k = tl.arange(0, BLOCK_K)[None, None, :]
    row_of_w = w + of_w.to(tl.int64)[None, :, None] * K
    # What is behind the last row is computed as the last, and not stored.
    row_of_x = x + tl.minimum(m, rows - 1)[:, None, None] * x_stride
    tiles = no_tensors()
    for ahead in tl.static_range(AHEAD):
        place = ahead * BLOCK_K + k
        tiles = one_more(tiles, tl.load(row_of_w + place, mask=place < K, other=0.0, eviction_policy="evict_first"))
    if low is not None:
        ups, factors, held = own_ups(of_w, m, rows, low)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    if low is not None:
        bits = tl.load(factors, mask=held, other=0, volatile=True)
    total = tl.zeros((ROWS, BLOCK_N, BLOCK_K // FOLD), tl.float32)
    values = tl.load(row_of_x + k, mask=k < K, other=0.0)
    for start in range(0, K, AHEAD * BLOCK_K):
        following = no_tensors()
        for ahead in tl.static_range(AHEAD):
            place = start + (ahead + 1) * BLOCK_K + k
            next_values = tl.load(row_of_x + place, mask=place < K, other=0.0)
            products = tiles[ahead].to(tl.float32) * values.to(tl.float32)
            total += tl.sum(tl.reshape(products, (ROWS, BLOCK_N, BLOCK_K // FOLD, FOLD)), 3)
            values = next_values
            place = start + (ahead + AHEAD) * BLOCK_K + k
            tile = tl.load(row_of_w + place, mask=place < K, other=0.0, eviction_policy="evict_first")
            following = one_more(following, tile)
        tiles = following
    result = tl.sum(total, 2)
    if low is not None:
        result += own_sums(ups, bits, factors, held)
    if bias is not None:
        result += tl.load(bias + of_w).to(tl.float32)[None, :]
    if KIND is not None:
        result = gated(result, y.dtype.element_ty, 1, KIND)
    n = block * result.shape[1] + tl.arange(0, result.shape[1])
    held = (m < rows)[:, None] & (n < outputs)[None, :]
    tl.store(y + m[:, None] * outputs + n[None, :], result.to(y.dtype.element_ty), mask=held)


def gemv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    choice: KernelConfig,
    kind: Activation | None = None,
    low: LowRank | None = None,
) -> Tensor:
    """x [m, K], rows each contiguous, times weight [N, K], contiguous; m at most 2. bias: [N].

    With an activation act(gate) · other [m, N / 2], see `gate`. low: what is added before that.
    """
    rows, outputs = x.shape[0], weight.shape[0] // (1 if kind is None else 2)
    block_rows, block_n = triton.next_power_of_2(rows), choice.block_n if kind is None else max(2, choice.block_n)
    y = torch.empty((rows, outputs), dtype=x.dtype, device=x.device)
    pdl = overlaps(x.device) and (low is None or low.overlaps)
    leads = 0 if low is None else low.units
    _gemv[(leads + triton.cdiv(weight.shape[0], block_n),)](
        *(x, weight, bias, y, x.stride(0), rows, outputs, None if low is None else given(low), leads),
        K=weight.shape[1],
        ROWS=block_rows,
        BLOCK_N=block_n,
        BLOCK_K=choice.block_k,
        AHEAD=choice.stages,
        FOLD=1 if block_rows * block_n <= MOST_APART else VECTOR,
        UNIT_PIECES=choice.warps,
        KIND=None if kind is None else kind.value,
        PDL=pdl,
        launch_pdl=pdl,
        num_warps=choice.warps,
    )
    return y
