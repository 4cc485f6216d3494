"""Which kernel multiplies with weights of few bits. Knows no checkpoint and no format."""

from torch import Tensor

from text_generation_server.kernels.matmul.packed import PackedWeight, multiply
from text_generation_server.layers.linear import LinearKernel
from text_generation_server.quantization.tuning import MatmulTuner


class UnpackingLinear(LinearKernel):
    """Multiplies by plain weights that are made for each product, on any device."""

    def __init__(self, weight: PackedWeight, bias: Tensor | None) -> None:
        self._weight = weight
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """[T, in] to [T, out]."""
        return multiply(x, self._weight, self._bias)


def coded_kernel(weight: PackedWeight, bias: Tensor | None, tuner: MatmulTuner | None) -> LinearKernel:
    """The fastest for these weights. tuner: chooses kernels on a GPU, None for torch's operations alone."""
    return UnpackingLinear(weight, bias)
