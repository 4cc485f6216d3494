"""Multiplies a few rows with a matrix by the kernel that was chosen for them. Knows not how one is chosen."""

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.kernels import activation
from text_generation_server.kernels.matmul.config import KernelConfig, KernelKind
from text_generation_server.kernels.matmul.dot import arrivals, dot
from text_generation_server.kernels.matmul.gemv import gemv
from text_generation_server.kernels.matmul.low_rank import LowRank
from text_generation_server.kernels.matmul.packed import PackedWeight, Weight
from text_generation_server.kernels.matmul.packed_dot import packed_dot
from text_generation_server.kernels.matmul.rounded import rounded_product
from text_generation_server.kernels.matmul.unpack import unpack
from text_generation_server.specs.activation import Activation


class SmallBatchLinear:
    """Multiplies on one device. For one stream at a time, and made before anything is captured in a graph."""

    def __init__(self, device: torch.device) -> None:
        self._arrived = arrivals(device)

    def __call__(
        self,
        x: Tensor,
        weight: Weight,
        bias: Tensor | None,
        choice: KernelConfig,
        kind: Activation | None = None,
        low: LowRank | None = None,
    ) -> Tensor:
        """x [m, K] · weight [N, K]ᵀ + bias [N], summed in float32 and rounded once; all of one 16-bit dtype.

        Args:
            x: at least one row and no more than the choice was made for; each contiguous and a multiple of 16 bytes
                from the next.
            weight: contiguous, and not written by the kernel in front: it is read before that one has ended. For cuBLAS
                one of few bits is made plain.
            kind: the result is act(gate) · other [m, N / 2], gates first; None for the product itself.
            low: is added to the product, by kernels of plain weights alone.
        """
        if choice.kernel is KernelKind.CUBLAS:
            product = _by_library(x, weight, bias)
            return product if kind is None else activation.gated(product, kind)
        if isinstance(weight, PackedWeight):
            return packed_dot(x, weight, bias, choice, self._arrived, kind)
        if choice.kernel is KernelKind.GEMV:
            return gemv(x, weight, bias, choice, kind, low)
        return dot(x, weight, bias, choice, self._arrived, kind, low)


def _by_library(x: Tensor, weight: Weight, bias: Tensor | None) -> Tensor:
    if isinstance(weight, Tensor):
        return F.linear(x, weight, bias)
    return rounded_product(x, weight, bias) if weight.rounds else F.linear(x, unpack(weight), bias)
