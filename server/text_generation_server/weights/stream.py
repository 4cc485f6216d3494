"""Writes a safetensors file tensor by tensor, chunk by chunk, so that memory holds one chunk. Knows no source format.

Layout (safetensors README): uint64 header length, JSON header of names, dtypes, shapes and byte ranges, the data.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class StoredType(StrEnum):
    """Element types that can be written, as safetensors spells them."""

    FLOAT32 = "F32"
    FLOAT16 = "F16"
    BFLOAT16 = "BF16"
    BYTES = "U8"
    """Whatever they stand for."""

    @property
    def itemsize(self) -> int:
        """Bytes a number."""
        return {StoredType.FLOAT32: 4, StoredType.BYTES: 1}.get(self, 2)

    @property
    def torch_name(self) -> str:
        """As config.json spells it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class StreamedTensor:
    """A tensor to write as `dtype`: `chunks` yields its numbers in order, in arrays of any shape.

    They are float32, or uint8 if they are to be written as bytes.
    """

    name: str
    shape: tuple[int, ...]
    chunks: Callable[[], Iterator[NDArray[Any]]]
    dtype: StoredType


def write_safetensors(path: Path, tensors: Sequence[StreamedTensor]) -> int:
    """Write all tensors, rounding to nearest even, and return the bytes written.

    Raises ValueError where a tensor's chunks do not add up to its shape.
    """
    header = _header(tensors)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for tensor in tensors:
            written = sum(file.write(_encode(chunk, tensor.dtype).data) for chunk in tensor.chunks())
            if written != _num_bytes(tensor):
                raise ValueError(f"{tensor.name}: {written} bytes came, {_num_bytes(tensor)} are its shape's")
        return file.tell()


def _num_bytes(tensor: StreamedTensor) -> int:
    return math.prod(tensor.shape) * tensor.dtype.itemsize


def _header(tensors: Sequence[StreamedTensor]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        end = offset + _num_bytes(tensor)
        entries[tensor.name] = {"dtype": tensor.dtype.value, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def _encode(numbers: NDArray[Any], dtype: StoredType) -> NDArray[Any]:
    flat = np.ascontiguousarray(numbers, "u1" if dtype is StoredType.BYTES else "<f4").reshape(-1)
    match dtype:
        case StoredType.BYTES:
            return flat
        case StoredType.FLOAT32:
            return flat
        case StoredType.FLOAT16:
            return flat.astype("<f2")
        case StoredType.BFLOAT16:
            return _to_bfloat16(flat)


def _to_bfloat16(numbers: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper half of each float32, rounded to nearest even; numpy has no such type. NaN is not kept."""
    bits = numbers.view(np.uint32)
    bits = bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))
    return bits.view(np.uint16)[1::2].copy()
