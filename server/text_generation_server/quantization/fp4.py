"""Weights of 4-bit floats, two a byte, with a scale for each 32 or 16 inputs. Knows no format's names.

A float of 4 bits is a sign, two bits of exponent and one of mantissa (e2m1). In MXFP4 (OCP Microscaling Formats 1.0)
32 of them share a power of two, of which the exponent is stored, 127 more than it is (e8m0). In NVFP4 16 of them share
a float of 8 bits (e4m3), and all of a linear a number in float32.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from text_generation_server.quantization.bits import PackedNumbers
from text_generation_server.quantization.coded import Coded
from text_generation_server.quantization.dense import DenseScheme
from text_generation_server.weights.checkpoint import Checkpoint
from text_generation_server.weights.layout import Rows

_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
E2M1 = (*_MAGNITUDES, *(-value for value in _MAGNITUDES))
"""What each code stands for."""

BITS = 4
MX_SIZE, NV_SIZE = 32, 16
"""Inputs that share a scale."""


@dataclass(frozen=True, slots=True)
class Fp4Linear:
    """Satisfies `Stored`. pairs: [out, in / 2] uint8, the first of two in the last bits.

    scales: [out, in / size], uint8 of exponents or float8. factor: of all scales.
    """

    pairs: Tensor
    scales: Tensor
    dense: DenseScheme
    factor: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """[out, in]."""
        return self.pairs.shape[0], 2 * self.pairs.shape[1]

    def read(self, rows: Rows, columns: Rows) -> Coded:
        """See `Stored`."""
        device, inputs = self.dense.device, self.shape[1]
        size = inputs // self.scales.shape[1]
        return Coded(
            codes=PackedNumbers(self.pairs.view(torch.int32), BITS, 1, device).read(rows, columns),
            scales=self._scales(self.scales.view(torch.uint8)[rows].to(device)),
            groups=(torch.arange(inputs) // size)[columns],
            dense=self.dense,
            bits=BITS,
            table=torch.tensor(E2M1, device=device),
        )

    def _scales(self, stored: Tensor) -> Tensor:
        """Exact: of powers of two in bfloat16, of others in float32, but where all is computed in 16 bits."""
        if self.scales.dtype is torch.uint8:
            return stored.view(torch.float8_e8m0fnu).to(torch.bfloat16)
        scales = stored.view(self.scales.dtype).float() * self.factor
        return scales if self.dense.dtype is torch.float32 else scales.to(torch.bfloat16)


def mx_linear(checkpoint: Checkpoint, pairs: str, scales: str, shape: tuple[int, int], dense: DenseScheme) -> Fp4Linear:
    """MXFP4 of tensors with these names [out, in / 2] and [out, in / 32]."""
    outputs, inputs = shape
    found = checkpoint.view(scales, (outputs, inputs // MX_SIZE), torch.uint8)
    return Fp4Linear(checkpoint.view(pairs, (outputs, inputs // 2), torch.uint8), found, dense)


def nv_linear(
    checkpoint: Checkpoint, pairs: str, scales: str, shape: tuple[int, int], dense: DenseScheme, factor: float
) -> Fp4Linear:
    """NVFP4 of tensors with these names [out, in / 2] and [out, in / 16]."""
    outputs, inputs = shape
    found = checkpoint.view(scales, (outputs, inputs // NV_SIZE), torch.float8_e4m3fn)
    return Fp4Linear(checkpoint.view(pairs, (outputs, inputs // 2), torch.uint8), found, dense, factor)


def number(checkpoint: Checkpoint, name: str) -> float:
    """The one of a tensor."""
    return float(checkpoint.view(name, (1,), others=((),)))
