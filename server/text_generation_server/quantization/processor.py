"""Products with weights of few bits on a CPU, by torch's own kernels. Knows no checkpoint and no format.

Measured (Zen 4, one thread, torch 2.13, by [1536, 640] in bfloat16, microseconds): one row takes 165 plain, 65 with 4
bits and 66 with 8; 471 rows 4990, 12300 and 13960, or 5800 with 8 bits that are made plain first. In float32 4 bits
take many times as long as weights that are made plain for each product, and are not used.
"""

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.kernels.matmul.packed import Code, PackedWeight, unpacked
from text_generation_server.layers.linear import LinearKernel

OUTPUTS = 16
"""Their number has to be a multiple of this, for 4 bits."""

FEW_ROWS = 16
"""Up to here codes of 8 bits are multiplied as they are."""

SIZES = (32, 64, 128)
"""Inputs that may share a scale, for 4 bits."""


class Int4Linear(LinearKernel):
    """Codes of 4 bits in torch's order."""

    def __init__(self, weight: PackedWeight, bias: Tensor | None) -> None:
        self._size = _group(weight)
        codes = unpacked(weight.words, weight.code)[:, : weight.inputs].to(torch.int32)
        self._codes = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        groups = weight.inputs // self._size
        scales = weight.scales.float()[:groups].expand(groups, -1)
        zero = torch.tensor(float(weight.zero))
        zeros = zero if weight.zeros is None else weight.zeros.float()[:groups]
        # Weights are (code - 8) · scale + offset there.
        offsets = (8 - zero) * scales - zeros if weight.minima else (8 - zeros) * scales
        self._scales = torch.stack((scales, offsets), -1).to(weight.dtype).contiguous()
        self._bias = bias

    @classmethod
    def of(cls, weight: PackedWeight, bias: Tensor | None) -> Self | None:
        """None for weights that it cannot multiply with, or not fast."""
        served = weight.code is Code.INT4 and weight.table is None and weight.dtype is torch.bfloat16
        return cls(weight, bias) if served and not weight.shape[0] % OUTPUTS and _group(weight) else None

    def __call__(self, x: Tensor) -> Tensor:
        """[T, in] to [T, out]."""
        y: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x.contiguous(), self._codes, self._size, self._scales)
        return y if self._bias is None else y.add_(self._bias)


class Int8Linear(LinearKernel):
    """Codes of 8 bits with a scale an output."""

    def __init__(self, weight: PackedWeight, bias: Tensor | None) -> None:
        self._codes = unpacked(weight.words, weight.code)[:, : weight.inputs].contiguous()
        self._scales = weight.scales[0].to(weight.dtype)
        self._bias = bias

    @classmethod
    def of(cls, weight: PackedWeight, bias: Tensor | None) -> Self | None:
        """None for weights that it cannot multiply with."""
        served = weight.code is Code.INT8 and len(weight.scales) == 1 and weight.zeros is None and weight.zero == 0
        return cls(weight, bias) if served else None

    def __call__(self, x: Tensor) -> Tensor:
        """[T, in] to [T, out]."""
        if len(x) > FEW_ROWS:
            y = F.linear(x, self._codes.to(x.dtype)).mul_(self._scales)
        else:
            y = torch.ops.aten._weight_int8pack_mm(x.contiguous(), self._codes, self._scales)
        return y if self._bias is None else y.add_(self._bias)


def _group(weight: PackedWeight) -> int:
    """Inputs with one scale, by which they can be divided; 0 if there is no such number that is served."""
    sizes = SIZES if len(weight.scales) == 1 else (weight.size,)
    return max((size for size in sizes if size in SIZES and not weight.inputs % size), default=0)
