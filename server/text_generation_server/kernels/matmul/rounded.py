"""Products of many rows in eight bits: each row is rounded to the weights' type, with a scale of its own.

Twin: `rounded` of `round_rows_plain`. For weights of 8-bit floats with one scale an output, by torch's scaled product.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from text_generation_server.kernels.matmul.packed import UNIT, PackedWeight, byte_order

LARGEST = 448.0
"""Of an 8-bit float with 4 bits of exponent."""

BLOCK_K = 2048


@triton.jit
def _round_rows(
    x: tl.tensor,
    y: tl.tensor,
    scales: tl.tensor,
    x_stride: int,
    inputs: int,
    padded: int,
    LARGEST: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    UNIT: tl.constexpr = 128
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK_K)
    most = tl.zeros((BLOCK_K,), tl.float32)
    for start in range(0, inputs, BLOCK_K):
        values = tl.load(x + row * x_stride + start + at, mask=start + at < inputs, other=0.0)
        most = tl.maximum(most, tl.abs(values.to(tl.float32)))
    scale = tl.maximum(tl.max(most, 0), 1e-12) / LARGEST
    tl.store(scales + row, scale)
    # As the bytes of two codes in a word lie: see `byte_order`.
    source = at // UNIT * UNIT + at % 2 * (UNIT // 2) + at % UNIT // 2
    for start in range(0, padded, BLOCK_K):
        values = tl.load(x + row * x_stride + start + source, mask=start + source < inputs, other=0.0)
        rounded = tl.clamp(values.to(tl.float32) / scale, -LARGEST, LARGEST).to(y.dtype.element_ty)
        tl.store(y + row * padded + start + at, rounded, mask=start + at < padded)


def round_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [m, K], rows each contiguous, as 8-bit floats [m, 128 · U] in `byte_order`, and scales [m, 1] float32."""
    rows, inputs = x.shape
    padded = triton.cdiv(inputs, UNIT) * UNIT
    y = torch.empty(rows, padded, dtype=torch.float8_e4m3fn, device=x.device)
    scales = torch.empty(rows, 1, dtype=torch.float32, device=x.device)
    _round_rows[(rows,)](x, y, scales, x.stride(0), inputs, padded, LARGEST=LARGEST, BLOCK_K=BLOCK_K, num_warps=8)
    return y, scales


def round_rows_plain(x: Tensor) -> tuple[Tensor, Tensor]:
    """`round_rows` by torch's operations."""
    units = -(-x.shape[1] // UNIT)
    values = torch.nn.functional.pad(x.float(), (0, units * UNIT - x.shape[1]))[:, byte_order(units, x.device)]
    scales = values.abs().amax(1, keepdim=True).clamp(min=1e-12) / LARGEST
    return (values / scales).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn), scales


def rounded_product(x: Tensor, weight: PackedWeight, bias: Tensor | None) -> Tensor:
    """x [m, K] · weight [N, K]ᵀ + bias [N], of the type of x."""
    rows, scales = round_rows(x)
    of_outputs = weight.scales.float()
    product = torch._scaled_mm(
        rows, weight.bytes.T, scale_a=scales, scale_b=of_outputs, out_dtype=x.dtype, use_fast_accum=True
    )
    return product if bias is None else product + bias
