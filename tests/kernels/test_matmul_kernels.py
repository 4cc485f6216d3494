"""Matrix kernels for few rows against float64, rounded once."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from text_generation_server.kernels.matmul.config import CUBLAS, KernelConfig, KernelKind, candidates
from text_generation_server.kernels.matmul.linear import SmallBatchLinear
from text_generation_server.layers.activation import gated_activation
from text_generation_server.specs.activation import Activation

DTYPES = (torch.bfloat16, torch.float16)
DOT_DTYPES = DTYPES if torch.cuda.is_available() else (torch.float16,)
"""Triton's interpreter multiplies the bit patterns of bfloat16 matrices."""

ULPS = {torch.bfloat16: 2**-7, torch.float16: 2**-10}
GEMV = KernelConfig(KernelKind.GEMV, block_n=2, block_k=32, warps=1, stages=2)
DOT = KernelConfig(KernelKind.DOT, block_n=16, block_k=32, warps=1, stages=2)
SWAPPED = replace(DOT, block_n=64, warps=4)
GATED = GEMV, replace(GEMV, block_n=1), replace(GEMV, block_n=4), DOT, SWAPPED, replace(SWAPPED, splits=2)
SHAPES = ((12288, 4096), (4096, 4096), (22016, 4096), (4096, 11008), (32000, 4096), (4096, 14336), (128256, 4096))
SHAPES += ((6144, 4096), (28672, 4096), (4096, 2048), (4096, 5504), (4096, 7168), (50257, 768))


def drawn(device, *shape, dtype):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator).to(device, dtype)


@pytest.fixture
def multiply(device):
    return SmallBatchLinear(device)


def operands(device, rows, outputs, inputs, dtype=torch.float16):
    shapes = (rows, inputs), (outputs, inputs), (outputs,)
    return tuple(drawn(device, *shape, dtype=dtype) for shape in shapes)


def assert_is_product(got, x, weight, bias=None):
    expected = x.double() @ weight.double().T
    if bias is not None:
        expected += bias.double()
    assert got.dtype == x.dtype
    torch.testing.assert_close(got.double(), expected, rtol=ULPS[x.dtype], atol=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stages", (1, 2, 8))
@pytest.mark.parametrize("rows", (1, 2, 3, 4))
def test_gemv(device, multiply, rows, stages, dtype):
    # Neither outputs nor inputs fill the last block.
    x, weight, bias = operands(device, rows, 5, 112, dtype)
    choice = replace(GEMV, stages=stages)
    assert_is_product(multiply(x, weight, None, choice), x, weight)
    assert_is_product(multiply(x, weight, bias, choice), x, weight, bias)


@pytest.mark.parametrize("dtype", DOT_DTYPES)
@pytest.mark.parametrize("choice", (DOT, SWAPPED), ids=("x left", "w left"))
@pytest.mark.parametrize("rows", (1, 8, 13, 32))
def test_dot(device, multiply, rows, choice, dtype):
    x, weight, bias = operands(device, rows, 70, 96, dtype)
    assert_is_product(multiply(x, weight, None, choice), x, weight)
    assert_is_product(multiply(x, weight, bias, choice), x, weight, bias)


@pytest.mark.parametrize("choice", (DOT, SWAPPED), ids=("x left", "w left"))
@pytest.mark.parametrize("splits", (2, 3))
def test_programs_that_share_the_inputs_add_up_and_can_do_so_again(device, multiply, choice, splits):
    x, weight, bias = operands(device, 5, 70, 192)
    for _ in range(2):
        got = multiply(x, weight, bias, replace(choice, splits=splits))
        assert_is_product(got, x, weight, bias)


@pytest.mark.parametrize("kind", (Activation.SILU, Activation.GELU_TANH))
@pytest.mark.parametrize("choice", (*GATED, CUBLAS), ids=str)
def test_gates_let_through_what_they_would_of_a_stored_product(device, multiply, choice, kind):
    """38 outputs, of which no block is full at the end."""
    rows = 2 if choice.kernel is KernelKind.GEMV else 5
    x, weight, bias = operands(device, rows, 76, 192)
    weight = weight / 10
    for added in (None, bias):
        expected = gated_activation(kind)(
            F.linear(x.double(), weight.double(), None if added is None else added.double()).to(x.dtype)
        )
        got = multiply(x, weight, added, choice, kind)
        assert got.dtype == x.dtype
        torch.testing.assert_close(got, expected, rtol=4 * ULPS[x.dtype], atol=2e-3)


@pytest.mark.parametrize("choice", (GEMV, DOT, SWAPPED, replace(SWAPPED, splits=2)), ids=str)
def test_a_row_is_the_same_beside_any_others(device, multiply, choice):
    x, weight, bias = operands(device, 3, 70, 128)
    other = x.clone()
    other[0], other[2] = float("nan"), 100.0
    got, expected = (multiply(rows, weight, bias, choice)[1] for rows in (other, x))
    assert torch.equal(got, expected)


def test_rows_may_be_parts_of_longer_ones(device, multiply):
    wide = drawn(device, 3, 192, dtype=torch.float16)
    _, weight, _ = operands(device, 3, 20, 96)
    for choice in (GEMV, DOT, CUBLAS):
        assert_is_product(multiply(wide[:, 96:], weight, None, choice), wide[:, 96:], weight)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rows", (1, 2, 4, 8, 16, 32))
def test_candidates_are_few_and_cover_the_shape(rows, shape):
    n, k = shape
    found = candidates(rows, n, k)
    assert 0 < len(found) <= 12
    assert len(set(found)) == len(found)
    for choice in found:
        if choice.kernel is KernelKind.DOT:
            assert k % (choice.block_k * choice.splits) == 0
        else:
            assert rows <= 4


def test_there_are_no_candidates_for_many_rows_or_odd_inputs():
    assert candidates(129, 4096, 4096) == []
    assert candidates(1, 4096, 4100) == []
