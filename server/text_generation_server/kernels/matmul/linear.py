"""Multiplies a few rows with a matrix by the kernel that was chosen for them. Knows not how one is chosen."""

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.kernels import activation
from text_generation_server.kernels.matmul.config import KernelConfig, KernelKind
from text_generation_server.kernels.matmul.dot import arrivals, dot
from text_generation_server.kernels.matmul.gemv import gemv
from text_generation_server.specs.activation import Activation


class SmallBatchLinear:
    """Multiplies on one device. For one stream at a time, and made before anything is captured in a graph."""

    def __init__(self, device: torch.device) -> None:
        self._arrived = arrivals(device)

    def __call__(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, choice: KernelConfig, kind: Activation | None = None
    ) -> Tensor:
        """x [m, K] · weight [N, K]ᵀ + bias [N], summed in float32 and rounded once; all of one 16-bit dtype.

        Args:
            x: at least one row and no more than the choice was made for; each contiguous and a multiple of 16 bytes
                from the next.
            weight: contiguous, and not written by the kernel in front: it is read before that one has ended.
            kind: the result is act(gate) · other [m, N / 2], gates first; None for the product itself.
        """
        match choice.kernel:
            case KernelKind.GEMV:
                return gemv(x, weight, bias, choice, kind)
            case KernelKind.DOT:
                return dot(x, weight, bias, choice, self._arrived, kind)
            case KernelKind.CUBLAS:
                product = F.linear(x, weight, bias)
                return product if kind is None else activation.gated(product, kind)
