"""Up to 8 rows on tensor cores that take weights from registers, as they come from memory: nothing passes through
shared memory, and no warp waits for another before the end.

Twin: `torch.nn.functional.linear`, and `layers/activation.py::gated_activation` of it.

The warps of a program share its inputs. In each 32 inputs a thread owns 8 that are read at once, and which of them
meet in one multiplication is free as long as it is the same for x: they are taken in the order in which the operands of
mma.m16n8k16 (PTX ISA, "Matrix Fragments for mma.m16n8k16") want them from this thread. The layout that Triton's
coalescing gives to the loads below is then that of the operands, and converting one into the other moves nothing.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.launch import overlaps
from text_generation_server.kernels.matmul.choice import Choice
from text_generation_server.kernels.matmul.pieces import both, gate, none, weight_row
from text_generation_server.layers.activation import Activation


@triton.jit
def _operand(tile: tl.tensor) -> tl.tensor:
    """[8, warps, n / 8, chunks, 32], as it is loaded, to [warps, n, chunks · 32], inputs in their order for threads."""
    warps: tl.constexpr = tile.shape[1]
    height: tl.constexpr = 8 * tile.shape[2]
    chunks: tl.constexpr = tile.shape[3]
    shares = tl.reshape(tl.permute(tile, (1, 2, 0, 3, 4)), (warps, height, chunks, 4, 4, 2))
    return tl.reshape(tl.permute(shares, (0, 1, 2, 4, 3, 5)), (warps, height, chunks * 32))


@triton.jit(do_not_specialize=["rows"])
def _stream(
    x: tl.tensor,
    w: tl.tensor,
    bias: tl.tensor,
    y: tl.tensor,
    x_stride: int,
    rows: int,
    outputs: int,
    K: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    WARPS: tl.constexpr,
    AHEAD: tl.constexpr,
    KIND: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    chunks: tl.constexpr = BLOCK_K // (WARPS * 32)
    # The order of these dimensions decides which a thread, a warp and a program hold (see above).
    eighth = tl.arange(0, 8)[:, None, None, None, None]
    warp = tl.arange(0, WARPS)[None, :, None, None, None]
    group = tl.arange(0, BLOCK_N // 8)[None, None, :, None, None]
    chunk = tl.arange(0, chunks)[None, None, None, :, None]
    k = (warp * chunks + chunk) * 32 + tl.arange(0, 32)[None, None, None, None, :]
    first = tl.program_id(0) * BLOCK_N
    row_of_w = w + weight_row(first + group * 8 + eighth, outputs, 8, KIND).to(tl.int64) * K
    row_of_x = x + eighth * x_stride
    tiles = none()
    for ahead in tl.static_range(AHEAD):
        place = ahead * BLOCK_K + k
        tiles = both(tiles, tl.load(row_of_w + place, mask=place < K, other=0.0, eviction_policy="evict_first"))
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    total = tl.zeros((WARPS, BLOCK_N, 8), tl.float32)
    values = tl.load(row_of_x + k, mask=(eighth < rows) & (k < K), other=0.0)
    # Not pipelined by Triton, which would do so through shared memory.
    for start in tl.range(0, K, AHEAD * BLOCK_K, num_stages=1):
        following = none()
        for ahead in tl.static_range(AHEAD):
            place = start + (ahead + 1) * BLOCK_K + k
            next_values = tl.load(row_of_x + place, mask=(eighth < rows) & (place < K), other=0.0)
            total = tl.dot(_operand(tiles[ahead]), tl.permute(_operand(values), (0, 2, 1)), total)
            values = next_values
            place = start + (ahead + AHEAD) * BLOCK_K + k
            tile = tl.load(row_of_w + place, mask=place < K, other=0.0, eviction_policy="evict_first")
            following = both(following, tile)
        tiles = following
    result = tl.sum(total, 0)
    if bias is not None:
        of_w = weight_row(first + tl.arange(0, BLOCK_N), outputs, 8, KIND)
        result += tl.load(bias + of_w).to(tl.float32)[:, None]
    n = first + tl.arange(0, BLOCK_N)
    if KIND is not None:
        pairs = tl.permute(tl.reshape(result, (BLOCK_N // 16, 2, 8, 8)), (0, 2, 3, 1))
        gates, others = tl.split(pairs)
        result = tl.reshape(gate(gates, others, y.dtype.element_ty, KIND), (BLOCK_N // 2, 8))
        n = first // 2 + tl.arange(0, BLOCK_N // 2)
    m = tl.arange(0, 8)[None, :]
    held = (m < rows) & (n < outputs)[:, None]
    tl.store(y + m * outputs + n[:, None], result.to(y.dtype.element_ty), mask=held)


def stream(x: Tensor, weight: Tensor, bias: Tensor | None, choice: Choice, kind: Activation | None = None) -> Tensor:
    """x [m, K], rows each contiguous, times weight [N, K], contiguous; m at most 8. bias: [N].

    With an activation, act(gate) · other [m, N / 2], where the first half of the outputs are gates.
    """
    rows, outputs = x.shape[0], weight.shape[0] if kind is None else weight.shape[0] // 2
    y = torch.empty((rows, outputs), dtype=x.dtype, device=x.device)
    pdl = overlaps(x.device)
    # Gates fill their eights, each beside eight others.
    blocks = triton.cdiv(outputs, choice.block_n if kind is None else choice.block_n // 2)
    _stream[(blocks,)](
        *(x, weight, bias, y, x.stride(0), rows, outputs),
        K=weight.shape[1],
        BLOCK_N=choice.block_n,
        BLOCK_K=choice.block_k,
        WARPS=choice.warps,
        AHEAD=choice.stages,
        KIND=None if kind is None else kind.value,
        PDL=pdl,
        launch_pdl=pdl,
        num_warps=choice.warps,
    )
    return y
