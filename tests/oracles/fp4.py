"""Writers of 4-bit floats, from the definitions of OCP's Microscaling Formats 1.0 and of NVFP4. See `quantised.py`."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oracles.quantised import Writer, Written

BIAS, MANTISSA_BITS = 1, 1
"""Of e2m1."""

LARGEST, LARGEST_FLOAT8 = 6.0, 448.0


def number(code: int) -> float:
    """What four bits stand for: sign, two of exponent, one of mantissa; without exponent it is subnormal."""
    sign, exponent, mantissa = code >> 3, code >> 1 & 3, code & 1
    fraction = mantissa / 2**MANTISSA_BITS
    magnitude = 2.0 ** (exponent - BIAS) * (1 + fraction) if exponent else 2.0 ** (1 - BIAS) * fraction
    return -magnitude if sign else magnitude


NUMBERS = np.array([number(code) for code in range(16)])


def _pairs(scaled: NDArray[np.float64]) -> tuple[Tensor, NDArray[np.float64]]:
    """Two codes a byte [out, in / 2], the first in the last bits, and what they stand for."""
    codes = np.abs(scaled[..., None] - NUMBERS).argmin(-1)
    return torch.from_numpy((codes[:, 0::2] | codes[:, 1::2] << 4).astype(np.uint8)), NUMBERS[codes]


def _of_blocks(weight: Tensor, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The weights, and the largest of each block [out, in / size]."""
    values = weight.double().numpy()
    return values, np.abs(values.reshape(len(values), -1, size)).max(-1)


def mxfp4(pairs: str = "weight_packed", scales: str = "weight_scale", blocks: bool = False) -> Writer:
    """A writer of 32 numbers that share a power of two. blocks: whether their bytes have an axis of their own."""

    def write(weight: Tensor, random: np.random.Generator) -> Written:
        values, largest = _of_blocks(weight, 32)
        exponents = np.floor(np.log2(largest)) - np.floor(np.log2(LARGEST))
        spread = np.repeat(2.0**exponents, 32, 1)
        packed, codes = _pairs(values / spread)
        written = {
            pairs: packed.view(len(packed), -1, 16) if blocks else packed,
            scales: torch.from_numpy((exponents + 127).astype(np.uint8)),
        }
        return written, torch.from_numpy(codes * spread).float()

    return write


def nvfp4(pairs: str = "weight_packed", whole: str = "weight_global_scale", divides: bool = True) -> Writer:
    """A writer of 16 numbers that share a float of 8 bits. divides: what the number for all of them does to those."""

    def write(weight: Tensor, random: np.random.Generator) -> Written:
        values, largest = _of_blocks(weight, 16)
        factor = np.float32(largest.max() / LARGEST / LARGEST_FLOAT8)
        stored = np.float32(1 / factor) if divides else factor
        factor = 1 / np.float64(stored) if divides else np.float64(stored)
        scales = torch.from_numpy(largest / LARGEST / factor).to(torch.float8_e4m3fn)
        spread = np.repeat(scales.double().numpy() * factor, 16, 1)
        packed, codes = _pairs(values / spread)
        written = {pairs: packed, "weight_scale": scales, whole: torch.tensor([stored] if divides else stored)}
        return written, torch.from_numpy(codes * spread).float()

    return write


def stacked(writer: Writer) -> Writer:
    """The same of all experts' [experts, in, out], each one's turned round."""

    def write(weight: Tensor, random: np.random.Generator) -> Written:
        every = [writer(one.T, random) for one in weight]
        tensors = {last: torch.stack([written[last] for written, _ in every]) for last in every[0][0]}
        return tensors, torch.stack([meant.T for _, meant in every])

    return write


def is_experts(name: str, tensor: Tensor) -> bool:
    """Whether a tensor has the weights of all experts of a layer."""
    return tensor.dim() == 3 and ".experts." in name
