"""Matrix kernels at sizes of real models: what each number of rows may be multiplied by, against torch."""

import pytest
import torch
import torch.nn.functional as F

from text_generation_server.kernels.matmul.config import candidates
from text_generation_server.layers.activation import gated_activation
from text_generation_server.specs.activation import Activation

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

TOLERANCE = {torch.bfloat16: 6e-3, torch.float16: 1e-3}
"""Of the norm of all results: one rounding."""

SHAPES = [(4096, 4096), (6144, 4096), (1024, 11008), (50264, 768)]


def first_and_last_of_each_kernel(rows, n, k):
    found = candidates(1 << (rows - 1).bit_length(), n, k)
    of_kernel = {choice.kernel: choice for choice in found}
    return {*of_kernel.values(), *{choice.kernel: choice for choice in reversed(found)}.values()}


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 16, 27, 64, 101])
@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_rows_are_multiplied_as_by_torch_and_know_nothing_of_each_other(dtype, n, k, rows):
    from text_generation_server.kernels.matmul.linear import SmallBatchLinear

    multiply = SmallBatchLinear(torch.device("cuda"))
    torch.manual_seed(rows)
    made = {"device": "cuda", "dtype": dtype}
    weight, bias, x = torch.randn(n, k, **made) * k**-0.5, torch.randn(n, **made), torch.randn(rows, k, **made)
    others = x.clone()
    others[1:] = torch.nan
    expected = F.linear(x.float(), weight.float(), bias.float())
    activated = gated_activation(Activation.SILU)(expected.to(dtype)).float()
    for choice in first_and_last_of_each_kernel(rows, n, k):
        gated = multiply(x, weight, bias, choice, Activation.SILU)
        assert (gated.float() - activated).norm() < 2 * TOLERANCE[dtype] * activated.norm(), choice
        got = multiply(x, weight, bias, choice)
        assert (got.float() - expected).norm() < TOLERANCE[dtype] * expected.norm(), choice
        assert torch.equal(multiply(x, weight, bias, choice), got), choice
        assert torch.equal(multiply(others, weight, bias, choice)[0], got[0]), choice
