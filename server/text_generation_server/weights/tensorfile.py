"""One safetensors file: its tensors as views of the mapped file, so that only what is used is read. Knows no model.

Layout (safetensors README): uint64 header length, JSON header of names, dtypes, shapes and byte ranges, the data.
A file is mapped tensor by tensor: when a view and all made from it are gone, this process has its memory back.
"""

import json
import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from text_generation_server.errors import ModelNotFound, UnsupportedModel
from text_generation_server.modelfiles import BEGINNING, refuse_pointer
from text_generation_server.weights.quantised import quantiser

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor is in its file; `begin` and `end` are bytes from the file's start."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.end - self.begin


class TensorFile:
    """The tensors of one file. quantised: tensors that only quantised models have are expected.

    Raises:
        ModelNotFound: there is no such file.
        UnsupportedModel: it is no safetensors file, is cut short, cannot be read, or has tensors in a form that is not
            read: quantised, or of an unknown type.
    """

    def __init__(self, path: Path, quantised: bool = False) -> None:
        self._path = path
        try:
            header, data_begin, size = _read_header(path)
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            _refuse_unknown(path, entries, quantised)
            self.tensors = {name: _stored(entry, data_begin, size) for name, entry in entries.items()}
        except FileNotFoundError as error:
            raise ModelNotFound(f"there is no {path}: download the model again") from error
        except OSError as error:
            raise UnsupportedModel(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
            reason = f"{path} is no complete safetensors file ({error}): download or convert it again"
            raise UnsupportedModel(reason) from error

    def view(self, name: str) -> Tensor:
        """The tensor as it is stored. Reading pages it in; writing to it changes only this view."""
        stored = self.tensors[name]
        if stored.nbytes == 0:
            return torch.empty(stored.shape, dtype=stored.dtype)
        start = stored.begin // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        with self._path.open("rb") as file:
            # A private mapping, because torch warns of buffers that cannot be written.
            mapped = mmap.mmap(file.fileno(), stored.end - start, offset=start, access=mmap.ACCESS_COPY)
        # Otherwise the kernel also fetches what lies before each first page: rows that are another rank's.
        mapped.madvise(mmap.MADV_SEQUENTIAL)
        count = math.prod(stored.shape)
        return torch.frombuffer(mapped, dtype=stored.dtype, count=count, offset=stored.begin - start).view(stored.shape)


def _read_header(path: Path) -> tuple[dict[str, Any], int, int]:
    size = path.stat().st_size
    with path.open("rb") as file:
        refuse_pointer(path, file.read(BEGINNING))
        file.seek(0)
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        if length > size - _LENGTH.size:
            raise ValueError(f"a header of {length} bytes in a file of {size}")
        header = json.loads(file.read(length))
    return header, _LENGTH.size + length, size


def _refuse_unknown(path: Path, entries: dict[str, Any], quantised: bool) -> None:
    """Tensors in a form that only the program knows that made it are no damage, and another download is no help."""
    if not quantised and (found := quantiser(entries)):
        method, name = found
        raise UnsupportedModel(
            f"{path} is quantised by {method} (it has {name}), but its config.json does not say how: expected "
            "quantization_config there, or a model that is not quantised"
        )
    for name, entry in entries.items():
        if entry["dtype"] not in DTYPES:
            raise UnsupportedModel(
                f"{path}: {name} has elements of type {entry['dtype']}, which is not supported; expected one of "
                f"{', '.join(DTYPES)}"
            )


def _stored(entry: dict[str, Any], data_begin: int, size: int) -> StoredTensor:
    begin, end = (data_begin + offset for offset in entry["data_offsets"])
    stored = StoredTensor(DTYPES[entry["dtype"]], tuple(entry["shape"]), begin, end)
    if not data_begin <= begin <= end <= size:
        raise ValueError(f"tensor bytes {begin} to {end} in a file of {size}")
    if math.prod(stored.shape) * stored.dtype.itemsize != stored.nbytes:
        raise ValueError(f"shape {list(stored.shape)} in {stored.nbytes} bytes")
    return stored
