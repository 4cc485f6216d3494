"""The streaming safetensors writer against the library's reader and torch's rounding."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from text_generation_server.weights.stream import StoredType, StreamedTensor, write_safetensors

_DTYPES = {
    StoredType.FLOAT32: torch.float32,
    StoredType.FLOAT16: torch.float16,
    StoredType.BFLOAT16: torch.bfloat16,
}


def _every_upper_half() -> torch.Tensor:
    """Finite float32 of all exponents and signs, with lower halves below, at and above the tie."""
    upper = torch.arange(1 << 16, dtype=torch.int64).repeat_interleave(5)
    lower = torch.tensor([0, 1, 0x7FFF, 0x8000, 0x8001]).repeat(1 << 16)
    bits = (upper << 16 | lower) - ((upper >= 1 << 15) * (1 << 32))
    numbers = bits.to(torch.int32).view(torch.float32)
    return numbers[numbers.isfinite()]


@pytest.mark.parametrize("dtype", _DTYPES)
def test_numbers_are_rounded_as_torch_does(tmp_path: Path, dtype: StoredType) -> None:
    numbers = _every_upper_half()
    if dtype is StoredType.FLOAT16:
        numbers = numbers[numbers.abs() < 65504]
    chunks = np.array_split(numbers.numpy(), 7)
    tensor = StreamedTensor("x", tuple(numbers.shape), lambda: iter(chunks), dtype)
    write_safetensors(tmp_path / "x.safetensors", [tensor])
    loaded = load_file(tmp_path / "x.safetensors")["x"]
    assert loaded.dtype == _DTYPES[dtype]
    assert torch.equal(loaded, numbers.to(_DTYPES[dtype]))


def test_several_tensors_lie_one_after_the_other(tmp_path: Path) -> None:
    arrays = {
        "a": np.ones((2, 3), "f4"),
        "b": np.arange(4, dtype="f4"),
        "é": np.arange(3, dtype="u1"),
        "d": np.zeros((1, 2, 2), "f4"),
    }
    types = {"float32": StoredType.FLOAT32, "uint8": StoredType.BYTES}
    tensors = [
        StreamedTensor(n, array.shape, partial(iter, array), types[array.dtype.name]) for n, array in arrays.items()
    ]
    written = write_safetensors(tmp_path / "x.safetensors", tensors)
    assert written == (tmp_path / "x.safetensors").stat().st_size
    loaded = load_file(tmp_path / "x.safetensors")
    assert {name: value.tolist() for name, value in loaded.items()} == {name: a.tolist() for name, a in arrays.items()}


def test_chunks_that_do_not_fill_the_shape_are_an_error(tmp_path: Path) -> None:
    tensor = StreamedTensor("x", (3,), lambda: iter([np.ones(2, "f4")]), StoredType.FLOAT32)
    with pytest.raises(ValueError, match="x: 8 bytes came, 12"):
        write_safetensors(tmp_path / "x.safetensors", [tensor])
