"""Products with weights of few bits, and what makes them plain, against their twins."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from text_generation_server.kernels.matmul import packed, rounded
from text_generation_server.kernels.matmul.config import CUBLAS, KernelConfig, KernelKind
from text_generation_server.kernels.matmul.linear import SmallBatchLinear
from text_generation_server.kernels.matmul.packed import UNIT, Code, PackedWeight
from text_generation_server.kernels.matmul.packed_experts import packed_experts
from text_generation_server.layers.activation import gated_activation
from text_generation_server.specs.activation import Activation

DOT = KernelConfig(KernelKind.DOT, block_n=64, block_k=UNIT, warps=4, stages=2)
DTYPES = (torch.bfloat16, torch.float16) if torch.cuda.is_available() else (torch.float16,)
"""Triton's interpreter multiplies the bit patterns of bfloat16 matrices."""

FORMS = ("int4", "int4 table", "int4 zeros", "int4 minima", "int8", "int8 zeros", "int8 minima", "float8")

SMALL_GROUPS = [("int4 zeros", 32), ("int4 minima", 32), ("int8", 16), ("int8 minima", 32)]
"""Of a slab or less."""


def made(device, form, outputs, inputs, size, dtype=torch.float16):
    """Random weights of a form, with about the values of plain ones."""
    generator = torch.Generator().manual_seed(outputs + inputs + size)
    units, zeros, zero = -(-inputs // UNIT), None, 0
    shape = outputs, units * UNIT
    if form.startswith("int4"):
        code, zero, codes = (
            Code.INT4,
            0 if form.endswith("table") else 8,
            torch.randint(16, shape, generator=generator, dtype=torch.uint8),
        )
    elif form.startswith("int8"):
        code, codes = Code.INT8, torch.randint(-128, 128, shape, generator=generator).to(torch.int8)
    else:
        code, codes = Code.FLOAT8, (torch.randn(shape, generator=generator) * 8).to(torch.float8_e4m3fn)
    groups = units * UNIT // size, outputs
    table = torch.randn(16, generator=generator).to(device, dtype) if form.endswith("table") else None
    if form.endswith("zeros"):
        zeros = torch.randint(16, groups, generator=generator).to(dtype).to(device)
    if form.endswith("minima"):
        zeros = torch.randn(groups, generator=generator).to(device)
    scales = (torch.rand(groups, generator=generator) + 0.5).to(torch.float16) / (8 if "4" in form else 64)
    words = packed.packed(codes, code).to(device)
    minima = form.endswith("minima")
    return PackedWeight(words, code, scales.to(device), zeros, zero, size, inputs, dtype, table, minima=minima)


@pytest.fixture
def multiply(device):
    return SmallBatchLinear(device)


def operands(device, rows, weight):
    generator = torch.Generator().manual_seed(rows)
    x, bias = torch.randn(rows, weight.inputs, generator=generator), torch.randn(weight.shape[0], generator=generator)
    return x.to(device, weight.dtype), bias.to(device, weight.dtype)


def product(x, weight, bias):
    return F.linear(x.float(), weight.plain(torch.float32), bias.float())


def assert_close(got, expected, dtype):
    assert got.dtype is dtype
    error = (got.float() - expected.float()).norm() / expected.float().norm()
    assert error < {torch.bfloat16: 6e-3, torch.float16: 1e-3}[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("form", "size"), [*((form, size) for form in FORMS for size in (128, 64)), *SMALL_GROUPS])
def test_rows_are_multiplied_as_by_plain_weights(device, multiply, form, size, dtype):
    """Neither outputs nor inputs fill the last block; programs share the inputs unevenly."""
    weight = made(device, form, 150, 352, size, dtype)
    x, bias = operands(device, 5, weight)
    expected = product(x, weight, bias)
    for choice in (DOT, replace(DOT, splits=2), CUBLAS):
        assert_close(multiply(x, weight, bias, choice), expected, dtype)
    assert_close(packed.multiply(x, weight, bias), expected, dtype)


@pytest.mark.parametrize("form", ["int4 zeros", "int8"])
def test_gates_let_through_what_they_would_of_a_stored_product(device, multiply, form):
    weight = made(device, form, 152, 256, 128)
    x, bias = operands(device, 3, weight)
    expected = gated_activation(Activation.SILU)(product(x, weight, bias).half()).float()
    for choice in (DOT, replace(DOT, splits=2), CUBLAS):
        assert_close(multiply(x, weight, bias, choice, Activation.SILU), expected, torch.float16)


@pytest.mark.parametrize("choice", [DOT, replace(DOT, splits=2)], ids=str)
def test_a_row_is_the_same_beside_any_others(device, multiply, choice):
    weight = made(device, "int4", 70, 256, 64)
    x, bias = operands(device, 3, weight)
    others = x.clone()
    others[0], others[2] = torch.nan, 100.0
    assert torch.equal(multiply(others, weight, bias, choice)[1], multiply(x, weight, bias, choice)[1])


@pytest.mark.parametrize("size", packed.SIZES)
@pytest.mark.parametrize("form", FORMS)
def test_weights_are_made_plain(device, multiply, form, size):
    weight = made(device, form, 41, 160, size, torch.float32)
    identity = torch.eye(160, device=device)
    torch.testing.assert_close(multiply(identity, weight, None, CUBLAS).T, weight.plain(torch.float32))


@pytest.mark.parametrize("form", ["int4 zeros", "int8", "float8"])
def test_a_scale_may_be_for_all_inputs(device, multiply, form):
    weight = made(device, form, 70, 256, 256)
    x, bias = operands(device, 2, weight)
    for choice in (DOT, replace(DOT, splits=2), CUBLAS):
        assert_close(multiply(x, weight, bias, choice), product(x, weight, bias), torch.float16)


def test_codes_of_a_byte_are_a_matrix_too(device):
    weight = made(device, "int8", 6, 256, 256)
    codes, order = packed.unpacked(weight.words, Code.INT8), packed.byte_order(2, device)
    assert weight.bytes.is_contiguous() and torch.equal(weight.bytes, codes[:, order])


def test_rows_are_rounded_as_by_torch(device):
    """Numbers that 8 bits hold: Triton's interpreter carries nothing into the exponent where it rounds."""
    x = (torch.randn(3, 352, generator=torch.Generator().manual_seed(0)) * 50).to(torch.float8_e4m3fn)
    x = x.to(torch.bfloat16).clamp(-448, 448).to(device)
    x[:, 100], x[1] = 448, 0
    (got, scales), (expected, expected_scales) = rounded.round_rows(x / 8), rounded.round_rows_plain(x / 8)
    assert torch.equal(scales, expected_scales) and torch.equal(got.float(), expected.float())
    assert expected.float()[0].unique().numel() > 90


@pytest.mark.parametrize("tokens", [1, 30])
@pytest.mark.parametrize(
    ("form", "size", "kind"),
    [
        *(("int4", 128, kind) for kind in (None, Activation.SILU)),
        *(("int4 zeros", 32, kind) for kind in (None, Activation.SILU)),
        *(
            (form, size, kind)
            for form, size in (("int4 minima", 32), ("int8", 256), ("int8", 16))
            for kind in (None, Activation.SILU)
        ),
        ("int4 table", 32, Activation.CLAMPED_SWIGLU),
    ],
)
def test_each_pair_is_multiplied_with_its_expert(device, form, size, kind, tokens):
    """Experts that nobody wants, one that more want than a program takes, outputs that fill no block."""
    experts, outputs, choices = 5, 40, 2
    weight = made(device, form, experts * outputs, 160 if size == 32 else 256, size)
    generator = torch.Generator().manual_seed(tokens)
    x = torch.randn(tokens, weight.inputs, generator=generator).to(device, torch.float16)
    chosen = torch.tensor([[3, 1]] * (tokens - 1) + [[3, 0]], device=device)
    ordered, order = chosen.flatten().sort()
    ends = torch.searchsorted(ordered, torch.arange(experts, device=device), right=True, out_int32=True)
    bias = None
    if "table" in form:
        bias = 4 * torch.randn(experts, outputs, generator=generator).to(device, torch.float16)
    got = packed_experts(x, weight, order, ends, choices, kind, bias)
    plain = weight.plain(torch.float32).view(experts, outputs, -1)
    expected = torch.stack([plain[expert] @ x[pair // choices].float() for pair, expert in enumerate(chosen.flatten())])
    if bias is not None:
        expected += bias.float()[chosen.flatten()]
    if kind is not None:
        expected = gated_activation(kind)(expected.half())
    assert_close(got, expected, torch.float16)
