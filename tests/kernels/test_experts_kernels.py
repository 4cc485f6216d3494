"""Experts of a few tokens against their twins."""

import pytest
import torch

from text_generation_server.kernels.experts.combine import combine
from text_generation_server.kernels.experts.order import BLOCK, FEW_PAIRS, ordered
from text_generation_server.kernels.experts.product import LEAST_BLOCK, product
from text_generation_server.kernels.experts.routing import route
from text_generation_server.layers.activation import gated_activation
from text_generation_server.layers.linear import ColumnParallelLinear, LinearStep
from text_generation_server.layers.moe import ExpertBiases, Router
from text_generation_server.quantization.dense import PlainLinear
from text_generation_server.quantization.dense_experts import DenseExperts
from text_generation_server.specs.activation import Activation

DTYPES = (torch.bfloat16, torch.float16) if torch.cuda.is_available() else (torch.float16,)
"""Triton's interpreter multiplies the bit patterns of bfloat16 matrices."""

BOTH = pytest.mark.parametrize("dtype", DTYPES)


def drawn(device, *shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator).to(device, dtype)


def one_by_one(x, weight, experts, shared):
    return torch.stack(
        [weight[expert].float() @ x[pair // shared].float() for pair, expert in enumerate(experts.flatten().tolist())]
    )


@BOTH
@pytest.mark.parametrize("inputs", (256, 72))
@pytest.mark.parametrize(
    ("tokens", "top", "experts"),
    ((1, 2, 8), (3, 2, 4), (40, 1, 2), (5, 3, 20)),
    ids=("one", "more pairs than experts", "several blocks of an expert", "unequal"),
)
def test_pairs_are_multiplied_by_their_experts(device, tokens, top, experts, inputs, dtype):
    """Of all experts the last is nobody's."""
    x, weight = drawn(device, tokens, inputs, dtype=dtype), drawn(device, experts, 84, inputs, dtype=dtype)
    chosen = torch.randint(experts - 1, (tokens, top), generator=torch.Generator().manual_seed(top)).to(device)
    expected = one_by_one(x, weight, chosen, top)
    tolerance = {"rtol": 2**-7 if dtype is torch.bfloat16 else 2**-10, "atol": 2e-2}
    places = chosen, *ordered(chosen, experts)
    got = product(x, weight, *places, top)
    torch.testing.assert_close(got.float(), expected, **tolerance)
    gated = product(x, weight, *places, top, Activation.SILU)
    torch.testing.assert_close(gated, gated_activation(Activation.SILU)(got), rtol=2**-6, atol=2e-2)


@BOTH
def test_an_experts_pairs_may_be_more_than_a_block(device, dtype):
    tokens = 5 * LEAST_BLOCK + 3
    x, weight = drawn(device, tokens, 64, dtype=dtype), drawn(device, 40, 16, 64, dtype=dtype)
    chosen = torch.full((tokens, 1), 7, device=device)
    torch.testing.assert_close(
        product(x, weight, chosen, *ordered(chosen, 40), 1).float(),
        one_by_one(x, weight, chosen, 1),
        rtol=2**-7,
        atol=2e-2,
    )


@pytest.mark.parametrize(
    ("pairs", "experts"), ((1, 3), (BLOCK + 5, 4), (7, 2 * BLOCK + 1), (300, 60), (FEW_PAIRS + 1, 8))
)
def test_order_is_that_of_a_stable_sort(device, pairs, experts):
    chosen = torch.randint(experts, (pairs,), generator=torch.Generator().manual_seed(pairs)).to(device)
    order, ends = ordered(chosen, experts)
    assert order.tolist() == chosen.sort(stable=True).indices.tolist()
    assert ends.tolist() == chosen.bincount(minlength=experts).cumsum(0).tolist()


@pytest.mark.parametrize("normalise", (None, 1.0, 2.0))
@pytest.mark.parametrize(("experts", "top"), ((8, 2), (60, 4), (128, 8), (3, 3)))
def test_routes_are_those_of_torch(device, experts, top, normalise):
    scores = 3 * drawn(device, 5, experts + 7)[:, :experts]
    got, weights = route(scores, top, normalise, torch.float32)
    shares, expected = scores.softmax(-1).topk(top)
    if normalise is not None:
        shares = shares / torch.linalg.vector_norm(shares, normalise, -1, keepdim=True)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(weights, shares)


def test_of_equal_experts_the_first_are_taken(device):
    got, weights = route(torch.zeros(2, 6, device=device), 2, 1.0, torch.float16)
    assert got.tolist() == [[0, 1]] * 2
    assert weights.tolist() == [[0.5, 0.5]] * 2


@BOTH
def test_sums_of_choices(device, dtype):
    y, weights = drawn(device, 6, 700, dtype=dtype), drawn(device, 3, 2, dtype=dtype)
    expected = (y.view(3, 2, 700).float() * weights[:, :, None].float()).sum(1).to(dtype)
    torch.testing.assert_close(combine(y, weights), expected)


@pytest.mark.parametrize("biased", [False, True])
def test_all_of_it_is_a_mixture_of_experts(device, biased):
    """By kernels for few, against the same layer in float32 as it is on a CPU."""
    numbers = drawn("cpu", 6, 96), drawn("cpu", 6, 32)
    biases = ExpertBiases(*numbers) if biased else None
    router, up, down = drawn("cpu", 6, 32), drawn("cpu", 6, 96, 32) / 6, drawn("cpu", 6, 32, 48) / 7
    x = drawn("cpu", 9, 32)
    routed = Router(ColumnParallelLinear(PlainLinear(router, None), ()), 2, 1.0)(x, LinearStep(None))
    expected = DenseExperts(up, Activation.SILU, down, biases)(x, *routed)
    biases = ExpertBiases(*(number.to(device, torch.float16) for number in numbers)) if biased else None
    half = (tensor.to(device, torch.float16) for tensor in (up, down, x, routed[1]))
    up, down, x, weights = half
    got = DenseExperts(up, Activation.SILU, down, biases).looked_up(x, routed[0].to(device), weights)
    torch.testing.assert_close(got.float().cpu(), expected, rtol=2**-8, atol=4e-3)
