"""The GGUF container: values of every type come back, and damaged files are refused with a sentence."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from text_generation_server.errors import UnsupportedModel
from text_generation_server.weights.gguf.container import read_container, read_rows

WriteGGUF = Callable[..., Path]


def test_metadata_of_every_type_comes_back(write_gguf: WriteGGUF) -> None:
    values = {
        "t.u8": 200, "t.i8": -3, "t.u16": 60000, "t.i16": -300, "t.u32": 4_000_000_000, "t.i32": -70000,
        "t.u64": 1 << 40, "t.i64": -(1 << 40), "t.f32": 0.5, "t.f64": 0.1, "t.yes": True, "t.text": "é",
        "t.texts": ["a", "b"], "t.numbers": [1, 2, 3],
    }  # fmt: skip

    def edit(writer: gguf.GGUFWriter) -> None:
        add: dict[str, Callable[[str, Any], None]] = {
            "t.u8": writer.add_uint8, "t.i8": writer.add_int8, "t.u16": writer.add_uint16, "t.i16": writer.add_int16,
            "t.u32": writer.add_uint32, "t.i32": writer.add_int32, "t.u64": writer.add_uint64,
            "t.i64": writer.add_int64, "t.f32": writer.add_float32, "t.f64": writer.add_float64,
            "t.yes": writer.add_bool, "t.text": writer.add_string, "t.texts": writer.add_array,
            "t.numbers": writer.add_array,
        }  # fmt: skip
        for key, value in values.items():
            add[key](key, value)

    metadata = read_container(write_gguf(edit=edit)).metadata
    assert {key: metadata[key] for key in values} == values


@pytest.mark.parametrize("quantization", ["F32", "F16", "BF16", "Q8_0", "Q4_1"])
def test_rows_are_read_apart(write_gguf: WriteGGUF, quantization: str) -> None:
    path = write_gguf(quantization=quantization)
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    container = read_container(path)
    assert list(container.tensors) == list(theirs)
    with path.open("rb") as file:
        for name, tensor in container.tensors.items():
            expected = gguf.quants.dequantize(theirs[name].data, theirs[name].tensor_type)
            rows = read_rows(file, tensor, 3, 11)
            assert rows.shape == (8, tensor.row_len)
            np.testing.assert_array_equal(rows, expected[3:11].reshape(8, -1))


@pytest.mark.parametrize("name", ["Q2_K", "Q6_K", "IQ4_XS", "TQ1_0"])
def test_every_block_that_the_package_decodes_is_read(tmp_path: Path, name: str) -> None:
    kind = gguf.GGMLQuantizationType[name]
    numbers, length = gguf.GGML_QUANT_SIZES[kind]
    data = np.random.default_rng(0).integers(0, 64, 3 * length, dtype=np.uint8)
    path = tmp_path / "model.gguf"
    header = struct.pack("<IQQ", 3, 1, 0) + struct.pack("<Q1sIQQIQ", 1, b"t", 2, numbers, 3, kind, 0)
    path.write_bytes((b"GGUF" + header).ljust(96, b"\0") + data.tobytes())
    with path.open("rb") as file:
        rows = read_rows(file, read_container(path).tensors["t"], 1, 3)
    np.testing.assert_array_equal(rows, gguf.quants.dequantize(data.reshape(3, -1), kind)[1:])


@pytest.mark.parametrize("fraction", [0.0, 0.00001, 0.0005, 0.01, 0.05, 0.3, 0.9, 0.999])
def test_a_file_cut_anywhere_is_refused(write_gguf: WriteGGUF, fraction: float) -> None:
    path = write_gguf()
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    with pytest.raises(UnsupportedModel, match=r"model\.gguf"):
        read_container(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\x03\x04 something else", "is no GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "little-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 60), "ends or breaks"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q1sI", 1, b"k", 99), "metadata type 99"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q1sI", 1, b"\xff", 0), "ends or breaks"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<Q1sIQIQ", 1, b"t", 1, 4, 24, 0), "GGML type 24"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<Q1sIQIQ", 1, b"t", 1, 31, 8, 0), "whole blocks of 32"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<Q1sIIQ", 1, b"t", 0, 0, 0), r"shape \(\)"),
    ],
    ids=[
        "magic",
        "version",
        "big-endian",
        "huge-string",
        "metadata-type",
        "not-utf8",
        "tensor-type",
        "part-of-a-block",
        "no-shape",
    ],
)
def test_what_is_not_read_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(UnsupportedModel, match=reason):
        read_container(path)


def test_a_part_of_a_split_file_is_refused(write_gguf: WriteGGUF) -> None:
    with pytest.raises(UnsupportedModel, match=r"split\.count is 3"):
        read_container(write_gguf(edit=lambda writer: writer.add_uint16("split.count", 3)))
