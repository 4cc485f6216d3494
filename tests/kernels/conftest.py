"""Kernels run in Triton's interpreter where there is no CUDA device: the same code, on CPU tensors."""

import pytest
import torch
from triton.runtime import interpreter

FLOATS_OF_8_BITS = {"fp8e4nv": torch.float8_e4m3fn, "fp8e5": torch.float8_e5m2}


@pytest.fixture
def device():
    """Where kernels can be run on this machine."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def carries(monkeypatch):
    """Triton 3.7 forgets to carry where it rounds to floats of 8 bits in its interpreter; let torch do it."""
    convert = interpreter._convert_float

    def converted(numbers, before, after, mode):
        dtype = FLOATS_OF_8_BITS.get(after.name)
        if dtype is None or before.name != "fp32":
            return convert(numbers, before, after, mode)
        return torch.tensor(numbers.view("float32")).to(dtype).view(torch.uint8).numpy()

    monkeypatch.setattr(interpreter, "_convert_float", converted)
