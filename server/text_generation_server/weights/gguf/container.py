"""The GGUF container, versions 2 and 3: metadata, tensor directory, tensor rows. Knows no model and no tokenizer.

Layout (ggml's gguf.md): magic, version, two counts, the metadata pairs, the tensor directory, padding, tensor data.
What blocks of numbers hold, the format's own package says; why its reader is not used: docs/libraries.md.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from text_generation_server.errors import UnsupportedModel
from text_generation_server.modelfiles import BEGINNING, refuse_pointer

Floats = NDArray[np.float32]
Scalar = str | bool | int | float
Value = Scalar | list[Scalar]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS: Mapping[int, str] = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_DEFAULT_ALIGNMENT = 32


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies: shape outermost first, offset in bytes from the start of the file."""

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    offset: int

    @property
    def num_rows(self) -> int:
        """Size of the outermost axis."""
        return self.shape[0]

    @property
    def row_len(self) -> int:
        """Numbers a row."""
        return math.prod(self.shape[1:])

    def byte_range(self, start: int, stop: int) -> tuple[int, int]:
        """Offset and length in bytes of rows [start, stop)."""
        numbers, length = GGML_QUANT_SIZES[self.kind]
        per_row = self.row_len * length
        return self.offset + start * per_row // numbers, (stop - start) * per_row // numbers


@dataclass(frozen=True, slots=True)
class Container:
    """What a GGUF file says about itself: metadata by key, tensors by name, in file order."""

    path: Path
    metadata: Mapping[str, Value]
    tensors: Mapping[str, TensorInfo]

    def number(self, key: str) -> float:
        """A number, integers included. Raises UnsupportedModel where it is missing or of another type."""
        value = self.metadata.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UnsupportedModel(f"{self.path}: metadata key {key} is {value!r}, expected a number")
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number, or `default` where the key is missing."""
        if default is not None and key not in self.metadata:
            return default
        value = self.number(key)
        if value != int(value):
            raise UnsupportedModel(f"{self.path}: metadata key {key} is {value!r}, expected a whole number")
        return int(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false, or `default` where the key is missing."""
        value = self.metadata.get(key, default)
        if not isinstance(value, bool):
            raise UnsupportedModel(f"{self.path}: metadata key {key} is {value!r}, expected true or false")
        return value

    def text(self, key: str) -> str:
        """A string. Raises UnsupportedModel where it is missing or of another type."""
        value = self.metadata.get(key)
        if not isinstance(value, str):
            raise UnsupportedModel(f"{self.path}: metadata key {key} is {value!r}, expected a string")
        return value

    def array(self, key: str) -> list[Scalar]:
        """A list. Raises UnsupportedModel where it is missing or of another type."""
        value = self.metadata.get(key)
        if not isinstance(value, list):
            raise UnsupportedModel(f"{self.path}: metadata key {key} is {value!r}, expected an array")
        return value

    def tensor(self, name: str) -> TensorInfo:
        """A tensor that has to be there. Raises UnsupportedModel where it is not."""
        if name not in self.tensors:
            raise UnsupportedModel(f"{self.path} has no tensor {name}")
        return self.tensors[name]


def read_container(path: Path) -> Container:
    """Read everything but the tensor data.

    Raises UnsupportedModel where the file is no GGUF, is cut short, or holds a version or tensor type not read here.
    """
    with path.open("rb") as file:
        try:
            return _Reader(path, file).container()
        except (struct.error, UnicodeDecodeError, EOFError) as error:
            raise UnsupportedModel(
                f"{path} ends or breaks inside its header ({error}): download or copy it again"
            ) from error


def read_rows(file: BinaryIO, tensor: TensorInfo, start: int, stop: int) -> Floats:
    """Rows [start, stop) of a tensor as float32 [rows, row_len]."""
    raw = read_packed(file, tensor, start, stop).reshape(-1)
    return dequantize(raw, tensor.kind).reshape(stop - start, tensor.row_len)


def read_packed(file: BinaryIO, tensor: TensorInfo, start: int, stop: int) -> NDArray[np.uint8]:
    """The bytes of rows [start, stop) of a tensor as they are stored [rows, bytes of a row]."""
    offset, length = tensor.byte_range(start, stop)
    file.seek(offset)
    return np.frombuffer(file.read(length), np.uint8).reshape(stop - start, -1)


class _Reader:
    """A cursor over the header."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._size = path.stat().st_size

    def container(self) -> Container:
        self._check_magic()
        tensor_count, pair_count = self._unpack("<Q"), self._unpack("<Q")
        metadata = {self._string(): self._value(int(self._unpack("<I"))) for _ in range(int(pair_count))}
        parts = metadata.get("split.count", 1)
        if parts != 1:
            raise UnsupportedModel(f"{self._path}: split.count is {parts}: merge the parts with llama-gguf-split first")
        tensors = [self._tensor() for _ in range(int(tensor_count))]
        return Container(self._path, metadata, self._placed(tensors, metadata))

    def _check_magic(self) -> None:
        refuse_pointer(self._path, self._file.read(BEGINNING))
        self._file.seek(0)
        magic = self._file.read(len(_MAGIC))
        if magic != _MAGIC:
            raise UnsupportedModel(f"{self._path} is no GGUF file: it starts with {magic!r}, expected {_MAGIC!r}")
        version = self._unpack("<I")
        if version not in _VERSIONS:
            raise UnsupportedModel(
                f"{self._path}: GGUF version {version} is not read, only little-endian files of versions {_VERSIONS}"
            )

    def _bytes(self, length: int) -> bytes:
        if length > self._size:
            raise EOFError(f"a string of {length} bytes in a file of {self._size}")
        data = self._file.read(length)
        if len(data) < length:
            raise EOFError(f"{length} bytes wanted, {len(data)} left")
        return data

    def _unpack(self, layout: str) -> bool | int | float:
        value: bool | int | float = struct.unpack(layout, self._bytes(struct.calcsize(layout)))[0]
        return value

    def _string(self) -> str:
        return self._bytes(int(self._unpack("<Q"))).decode()

    def _scalar(self, kind: int) -> Scalar:
        return self._string() if kind == _STRING else self._unpack(self._layout(kind))

    def _layout(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise UnsupportedModel(f"{self._path}: metadata type {kind} is not one that GGUF defines")
        return _SCALARS[kind]

    def _value(self, kind: int) -> Value:
        if kind != _ARRAY:
            return self._scalar(kind)
        item_kind, count = int(self._unpack("<I")), int(self._unpack("<Q"))
        if item_kind == _STRING:
            return [self._string() for _ in range(count)]
        layout = self._layout(item_kind)
        return list(struct.unpack(f"<{count}{layout[1]}", self._bytes(count * struct.calcsize(layout))))

    def _tensor(self) -> TensorInfo:
        """A directory entry; its offset still counts from the start of the data."""
        name = self._string()
        shape = tuple(int(self._unpack("<Q")) for _ in range(int(self._unpack("<I"))))[::-1]
        kind, offset = self._tensor_kind(name), int(self._unpack("<Q"))
        size, _ = GGML_QUANT_SIZES[kind]
        if not shape or 0 in shape or shape[-1] % size:
            raise UnsupportedModel(
                f"{self._path}: tensor {name} has shape {shape}, expected rows of whole blocks of {size}"
            )
        return TensorInfo(name, shape, kind, offset)

    def _tensor_kind(self, name: str) -> GGMLQuantizationType:
        number = int(self._unpack("<I"))
        try:
            kind = GGMLQuantizationType(number)
            _, length = GGML_QUANT_SIZES[kind]
            dequantize(np.zeros(length, np.uint8), kind)  # refused here, not in the middle of the data
        except (ValueError, NotImplementedError) as error:
            raise UnsupportedModel(
                f"{self._path}: tensor {name} has GGML type {number}, which is not read ({error})"
            ) from error
        return kind

    def _placed(self, tensors: list[TensorInfo], metadata: Mapping[str, Value]) -> dict[str, TensorInfo]:
        """Entries with offsets from the start of the file, all of them inside it."""
        alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment <= 0:
            raise UnsupportedModel(f"{self._path}: general.alignment is {alignment!r}, expected a positive number")
        base = -(-self._file.tell() // alignment) * alignment
        placed = [TensorInfo(tensor.name, tensor.shape, tensor.kind, base + tensor.offset) for tensor in tensors]
        for tensor in placed:
            offset, length = tensor.byte_range(0, tensor.num_rows)
            if offset + length > self._size:
                raise UnsupportedModel(
                    f"{self._path} is cut short: tensor {tensor.name} ends at byte {offset + length}, "
                    f"the file has {self._size}; download or copy it again"
                )
        return {tensor.name: tensor for tensor in placed}
