"""Which kernel multiplies with weights of few bits, and what makes them plain. Knows no checkpoint and no format."""

import torch
from torch import Tensor

from text_generation_server.kernels.matmul.packed import PackedWeight, multiply
from text_generation_server.layers.linear import LinearKernel
from text_generation_server.quantization.dense import TunedLinear
from text_generation_server.quantization.processor import Int4Linear, Int8Linear
from text_generation_server.quantization.tuning import MatmulTuner


class UnpackingLinear(LinearKernel):
    """Multiplies by plain weights that are made for each product, a tile at a time, on any device."""

    def __init__(self, weight: PackedWeight, bias: Tensor | None) -> None:
        self._weight = weight
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """[T, in] to [T, out]."""
        return multiply(x, self._weight, self._bias)


def coded_kernel(weight: PackedWeight, bias: Tensor | None, tuner: MatmulTuner | None) -> LinearKernel:
    """The fastest for these weights. tuner: chooses kernels on a GPU, None for torch's operations alone."""
    if tuner is not None:
        return TunedLinear(weight, bias, tuner)
    if weight.device.type == "cpu":
        for kernel in (Int4Linear, Int8Linear):
            if (found := kernel.of(weight, bias)) is not None:
                return found
    return UnpackingLinear(weight, bias)


def plain_weights(weight: PackedWeight) -> Tensor:
    """[N, K] in the type that is computed with."""
    if weight.device.type == "cuda":
        from text_generation_server.kernels.matmul.unpack import unpack  # Triton is installed on CUDA devices

        return unpack(weight)
    return torch.cat([weight.plain(weight.dtype, tile) for tile in weight.tiles()])
