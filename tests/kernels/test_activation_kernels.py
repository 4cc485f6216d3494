"""Gated activations against their twin of torch operators."""

import pytest
import torch

from text_generation_server.kernels import activation as module
from text_generation_server.kernels.activation import LARGE_BLOCK, SMALL_BLOCK, gated
from text_generation_server.layers.activation import gated_activation
from text_generation_server.specs.activation import Activation

# exp(−x) of the logistic function may become infinite, which is right and which only an interpreter speaks of.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp")


def drawn(device, rows, width, dtype):
    generator = torch.Generator().manual_seed(rows + width)
    return (3 * torch.randn((rows, 2 * width), generator=generator)).to(device, dtype)


def assert_same(got, x, kind):
    expected = gated_activation(kind)(x)
    assert got.dtype == x.dtype
    # The function may round to a neighbour, and the product then once more.
    rtol = {torch.float32: 1e-5, torch.bfloat16: 2**-6, torch.float16: 2**-9}[x.dtype]
    torch.testing.assert_close(got, expected, rtol=rtol, atol=1e-5)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float16))
@pytest.mark.parametrize("kind", Activation)
def test_each_function_is_that_of_torch(device, kind, dtype):
    x = drawn(device, 2, 24, dtype)
    assert_same(gated(x, kind), x, kind)


@pytest.mark.parametrize("width", (1, SMALL_BLOCK - 1, SMALL_BLOCK, 2 * SMALL_BLOCK + 7))
def test_any_width(device, width):
    x = drawn(device, 3, width, torch.bfloat16)
    assert_same(gated(x, Activation.SILU), x, Activation.SILU)


def test_many_results_go_through_large_blocks(device, monkeypatch):
    monkeypatch.setattr(module, "MANY", 1)
    x = drawn(device, 2, LARGE_BLOCK + 5, torch.bfloat16)
    assert_same(gated(x, Activation.GELU_TANH), x, Activation.GELU_TANH)


def test_rows_may_lie_apart(device):
    x = drawn(device, 3, 20, torch.float32)[:, :32]
    assert_same(gated(x, Activation.SILU), x, Activation.SILU)


@pytest.mark.parametrize("kind", Activation)
def test_extremes_stay_what_they_are(device, kind):
    gate = torch.tensor([[-1e4, -30.0, -0.0, 0.0, 30.0, 1e4, float("nan")]], device=device)
    got = gated(torch.cat((gate, torch.ones_like(gate)), 1), kind)
    expected = gated_activation(kind)(torch.cat((gate, torch.ones_like(gate)), 1))
    torch.testing.assert_close(got, expected, equal_nan=True)
