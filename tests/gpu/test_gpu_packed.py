"""Products with weights of few bits at sizes of real models, by whatever may be chosen, against plain weights."""

import pytest
import torch

from text_generation_server.kernels.matmul.config import CUBLAS, packed_candidates
from text_generation_server.kernels.matmul.packed import Code, PackedWeight, packed
from text_generation_server.layers.activation import gated_activation
from text_generation_server.quantization.formats.made import NF4
from text_generation_server.specs.activation import Activation

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

TOLERANCE = {torch.bfloat16: 6e-3, torch.float16: 1e-3}
"""Of the norm of all results: one rounding."""

ROUNDED = 5e-2
"""The same where rows are rounded to 8 bits."""

FORMS = {
    "int4": (Code.INT4, 128),
    "int4 zeros": (Code.INT4, 64),
    "int4 table": (Code.INT4, 64),
    "int4 minima": (Code.INT4, 32),
    "int8": (Code.INT8, 128),
    "int8 in 16": (Code.INT8, 16),
    "int8 minima": (Code.INT8, 32),
    "int8 rows": (Code.INT8, 0),
    "float8 rows": (Code.FLOAT8, 0),
}


def made(form, n, k, dtype):
    code, size = FORMS[form]
    units = -(-k // 128)
    size = size or units * 128
    codes = torch.randn(n, units * 128, device="cuda").mul_(8).to(code.dtype).view(torch.uint8)
    codes = (codes & 15 if code is Code.INT4 else codes).view(code.dtype)
    groups = units * 128 // size, n
    zeros = torch.randint(16, groups, device="cuda").to(dtype) if "zeros" in form else None
    if "minima" in form:
        zeros = torch.randn(groups, device="cuda").div_(k**0.5).half()
    table = torch.tensor(NF4, device="cuda").to(dtype) if "table" in form else None
    scales = (torch.rand(groups, device="cuda") + 0.5) / 8 / k**0.5
    rounds = code is Code.FLOAT8
    zero = 8 if form == "int4" else 0
    minima = "minima" in form
    return PackedWeight(packed(codes, code), code, scales, zeros, zero, size, k, dtype, table, rounds, minima)


@pytest.mark.parametrize("rows", [1, 5, 27, 101, 300])
@pytest.mark.parametrize(("n", "k"), [(6144, 4096), (4096, 2752)])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_rows_are_multiplied_as_by_plain_weights(dtype, form, n, k, rows):
    from text_generation_server.kernels.matmul.linear import SmallBatchLinear

    multiply = SmallBatchLinear(torch.device("cuda"))
    torch.manual_seed(rows)
    weight = made(form, n, k, dtype)
    x, bias = torch.randn(rows, k, device="cuda", dtype=dtype), torch.randn(n, device="cuda", dtype=dtype)
    expected = torch.nn.functional.linear(x.float(), weight.plain(torch.float32), bias.float())
    activated = gated_activation(Activation.SILU)(expected.to(dtype)).float()
    found = packed_candidates(rows, n, k, weight.form)
    for choice in (*found[:1], *found[-1:], CUBLAS):
        most = ROUNDED if choice == CUBLAS and weight.rounds else TOLERANCE[dtype]
        got = multiply(x, weight, bias, choice)
        assert (got.float() - expected).norm() < most * expected.norm(), choice
        assert torch.equal(multiply(x, weight, bias, choice), got), choice
        gated = multiply(x, weight, bias, choice, Activation.SILU)
        assert (gated.float() - activated).norm() < 2 * most * activated.norm(), choice
