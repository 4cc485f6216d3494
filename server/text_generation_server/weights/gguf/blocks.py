"""How GGML tensor types lay numbers out in blocks, and how a block becomes float32. Knows no file and no model.

The layouts are the block structs of ggml (ggml-common.h); each is written here as a numpy record, so that one
expression works on all blocks at once. In every 4-bit layout the low nibbles come before the high ones.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Records = NDArray[Any]


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """One GGML type.

    name: as GGML spells it.
    size: numbers a block.
    record: the bytes of a block.
    decode: records [n] to float32 [n, size].
    """

    name: str
    size: int
    record: np.dtype[Any]
    decode: Callable[[Records], Floats]

    def dequantize(self, raw: NDArray[np.uint8]) -> Floats:
        """Turn whole blocks, uint8 [n * bytes], into float32 [n * size]."""
        return self.decode(raw.view(self.record)).reshape(-1)


def _float(field: Records) -> Floats:
    """A column [n, 1] of per-block scales."""
    return field.astype(np.float32)[:, None]


def _nibbles(packed: Records) -> NDArray[np.uint8]:
    """uint8 [n, ..., k] to uint8 [n, ..., 2k]: all low halves, then all high ones."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


def _bits(words: Records) -> NDArray[np.uint8]:
    """uint32 [n] to their 32 bits, uint8 [n, 32], lowest first."""
    return np.unpackbits(words[:, None].view(np.uint8), axis=1, bitorder="little")


def _shifted(packed: Records, shifts: tuple[int, ...], mask: int) -> NDArray[np.uint8]:
    """uint8 [n, ..., k] to uint8 [n, ..., len(shifts), k]: one layer of bits for each shift."""
    return (packed[..., None, :] >> np.array(shifts, np.uint8)[:, None]) & np.uint8(mask)


def _q4_0(b: Records) -> Floats:
    return _float(b["d"]) * (_nibbles(b["qs"]).astype(np.float32) - 8)


def _q4_1(b: Records) -> Floats:
    return _float(b["d"]) * _nibbles(b["qs"]).astype(np.float32) + _float(b["m"])


def _q5_0(b: Records) -> Floats:
    return _float(b["d"]) * ((_nibbles(b["qs"]) | _bits(b["qh"]) << 4).astype(np.float32) - 16)


def _q5_1(b: Records) -> Floats:
    return _float(b["d"]) * (_nibbles(b["qs"]) | _bits(b["qh"]) << 4).astype(np.float32) + _float(b["m"])


def _q8_0(b: Records) -> Floats:
    return _float(b["d"]) * b["qs"].astype(np.float32)


def _grouped(scale: Floats, q: NDArray[Any], minimum: Floats | None = None) -> Floats:
    """scale [n, g] times q [n, 256], less minimum [n, g]: every group of 256 / g numbers has its own pair."""
    numbers = scale[:, :, None] * q.reshape(*scale.shape, -1).astype(np.float32)
    if minimum is not None:
        numbers -= minimum[:, :, None]
    return numbers.reshape(len(scale), -1)


def _scales_and_minima(b: Records) -> tuple[Floats, Floats]:
    """The eight 6-bit scales and minima that Q4_K and Q5_K pack into 12 bytes, times d and dmin: float32 [n, 8]."""
    low, middle, high = b["scales"][:, :4], b["scales"][:, 4:8], b["scales"][:, 8:]
    scales = np.concatenate([low & 63, (high & 15) | (low >> 6) << 4], axis=1)
    minima = np.concatenate([middle & 63, (high >> 4) | (middle >> 6) << 4], axis=1)
    return _float(b["d"]) * scales.astype(np.float32), _float(b["dmin"]) * minima.astype(np.float32)


def _q2_k(b: Records) -> Floats:
    q = _shifted(b["qs"].reshape(-1, 2, 32), (0, 2, 4, 6), 3)
    scale = _float(b["d"]) * (b["scales"] & 15).astype(np.float32)
    return _grouped(scale, q, _float(b["dmin"]) * (b["scales"] >> 4).astype(np.float32))


def _q3_k(b: Records) -> Floats:
    low = _shifted(b["qs"].reshape(-1, 2, 32), (0, 2, 4, 6), 3).reshape(-1, 256).astype(np.int8)
    missing = 1 - _shifted(b["hmask"], tuple(range(8)), 1).reshape(-1, 256).astype(np.int8)
    four_bits = _nibbles(b["scales"][:, :8])
    two_bits = _shifted(b["scales"][:, 8:], (0, 2, 4, 6), 3).reshape(-1, 16)
    scales = (four_bits | two_bits << 4).astype(np.int8) - 32
    return _grouped(_float(b["d"]) * scales.astype(np.float32), low - 4 * missing)


def _q4_k(b: Records) -> Floats:
    scale, minimum = _scales_and_minima(b)
    return _grouped(scale, _nibbles(b["qs"].reshape(-1, 4, 32)), minimum)


def _q5_k(b: Records) -> Floats:
    scale, minimum = _scales_and_minima(b)
    low = _nibbles(b["qs"].reshape(-1, 4, 32)).reshape(-1, 256)
    high = _shifted(b["qh"], tuple(range(8)), 1).reshape(-1, 256)
    return _grouped(scale, low | high << 4, minimum)


def _q6_k(b: Records) -> Floats:
    low = _nibbles(b["ql"].reshape(-1, 2, 64)).reshape(-1, 256)
    high = _shifted(b["qh"].reshape(-1, 2, 32), (0, 2, 4, 6), 3).reshape(-1, 256)
    q = (low | high << 4).astype(np.int8) - 32
    return _grouped(_float(b["d"]) * b["scales"].astype(np.float32), q)


def _plain(b: Records) -> Floats:
    return b["x"].astype(np.float32)[:, None]


def _bf16(b: Records) -> Floats:
    return (b["x"].astype(np.uint32) << 16).view(np.float32)[:, None]


def _format(name: str, size: int, fields: list[Any], decode: Callable[[Records], Floats]) -> BlockFormat:
    return BlockFormat(name, size, np.dtype(fields), decode)


_D, _M, _DMIN = ("d", "<f2"), ("m", "<f2"), ("dmin", "<f2")

FORMATS: Mapping[int, BlockFormat] = {
    0: _format("F32", 1, [("x", "<f4")], _plain),
    1: _format("F16", 1, [("x", "<f2")], _plain),
    2: _format("Q4_0", 32, [_D, ("qs", "u1", 16)], _q4_0),
    3: _format("Q4_1", 32, [_D, _M, ("qs", "u1", 16)], _q4_1),
    6: _format("Q5_0", 32, [_D, ("qh", "<u4"), ("qs", "u1", 16)], _q5_0),
    7: _format("Q5_1", 32, [_D, _M, ("qh", "<u4"), ("qs", "u1", 16)], _q5_1),
    8: _format("Q8_0", 32, [_D, ("qs", "i1", 32)], _q8_0),
    10: _format("Q2_K", 256, [("scales", "u1", 16), ("qs", "u1", 64), _D, _DMIN], _q2_k),
    11: _format("Q3_K", 256, [("hmask", "u1", 32), ("qs", "u1", 64), ("scales", "u1", 12), _D], _q3_k),
    12: _format("Q4_K", 256, [_D, _DMIN, ("scales", "u1", 12), ("qs", "u1", 128)], _q4_k),
    13: _format("Q5_K", 256, [_D, _DMIN, ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)], _q5_k),
    14: _format("Q6_K", 256, [("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), _D], _q6_k),
    30: _format("BF16", 1, [("x", "<u2")], _bf16),
}
"""The types read here, by their number in the file."""
