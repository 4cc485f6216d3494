"""Slopes, rotation, norms and kernels, each against its formula written out."""

import math

import pytest
import torch

from text_generation_server.layers.activation import gated_activation
from text_generation_server.layers.alibi import alibi_slopes, spec_slopes
from text_generation_server.layers.frequencies import frequencies
from text_generation_server.layers.linear import ColumnParallelLinear, LinearStep
from text_generation_server.layers.moe import Router
from text_generation_server.layers.norm import FEW_TOKENS, OffsetRmsNorm, RmsNorm
from text_generation_server.layers.rotary import Rotary, rotate
from text_generation_server.quantization.dense import DenseMatrix, PlainLinear, dense_kernel
from text_generation_server.quantization.dense_experts import DenseExperts
from text_generation_server.specs.activation import Activation
from text_generation_server.specs.alibi import AlibiSpec
from text_generation_server.specs.rope import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongropeScaling,
    RopeSpec,
    YarnScaling,
)

CPU = torch.device("cpu")


def frequencies_of(dim, theta, scaling, spans=(1,)):
    """Radians a position; a row a span where they depend on it."""
    return frequencies(RopeSpec(dim, theta, scaling), CPU)(torch.tensor(spans))


def test_slopes_of_a_power_of_two():
    assert alibi_slopes(8) == [2.0**-i for i in range(1, 9)]


def test_slopes_between_powers_of_two():
    assert alibi_slopes(6) == [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]


def test_a_rank_has_the_slopes_of_its_heads():
    assert spec_slopes(AlibiSpec(), 6, range(3, 6)) == (2**-8, 2**-1, 2**-3)


def test_rounded_slopes_are_scaled_after_rounding():
    (slope,) = spec_slopes(AlibiSpec(scale=0.1, bf16_slopes=True), 12, range(8, 9))
    assert slope == pytest.approx(0.1 * torch.tensor(2**-0.5).bfloat16().item(), rel=1e-6)


def test_rotation_turns_pairs_and_keeps_the_rest():
    heads = torch.randn(2, 3, 10)
    expected = heads.clone()
    rotary = Rotary(RopeSpec(4, 100.0), torch.float32, CPU)
    rotate(heads, rotary.angles(torch.tensor([0, 7]), torch.tensor([9, 9])))
    for pair, frequency in enumerate((1.0, 0.1)):
        first, second = expected[1, :, pair].clone(), expected[1, :, pair + 2].clone()
        cos, sin = math.cos(7 * frequency), math.sin(7 * frequency)
        expected[1, :, pair], expected[1, :, pair + 2] = first * cos - second * sin, second * cos + first * sin
    torch.testing.assert_close(heads, expected)


def test_linear_scaling_divides_frequencies():
    plain, scaled = (frequencies_of(8, 10.0, scaling) for scaling in (None, LinearScaling(4.0)))
    torch.testing.assert_close(scaled, plain / 4)


@pytest.mark.parametrize(
    "scaling", [Llama3Scaling(8.0, 1.0, 4.0, 8192), YarnScaling(8.0, 8192, 32.0, 1.0, 1.2, truncate=True)]
)
def test_blended_scalings_keep_fast_turns_and_divide_slow_ones(scaling):
    plain, scaled = (frequencies_of(64, 5e5, kind) for kind in (None, scaling))
    ratio = (plain / scaled).tolist()
    assert ratio[0] == pytest.approx(1) and ratio[-1] == pytest.approx(8)
    assert ratio == sorted(ratio)
    assert any(1.01 < value < 7.9 for value in ratio)


def test_dynamic_scaling_grows_theta_with_the_span():
    plain = frequencies_of(8, 100.0, None)
    within, beyond = frequencies_of(8, 100.0, DynamicScaling(2.0, 10), spans=(10, 30))
    torch.testing.assert_close(within, plain)
    theta = 100.0 * (2.0 * 30 / 10 - 1) ** (8 / 6)
    torch.testing.assert_close(beyond, theta ** -(torch.arange(0, 8, 2) / 8))


def test_longrope_divides_by_one_of_two_sets():
    plain = frequencies_of(4, 100.0, None)
    scaling = LongropeScaling((1.0, 2.0), (4.0, 8.0), 10, 1.5)
    within, beyond = frequencies_of(4, 100.0, scaling, spans=(10, 11))
    torch.testing.assert_close(within, plain / torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(beyond, plain / torch.tensor([4.0, 8.0]))


@pytest.mark.parametrize("normalise", [None, 1.0, 2.0])
def test_experts_are_those_of_each_token(normalise):
    """Against one token and one expert at a time; expert 4 is never chosen."""
    up, down, x = torch.randn(5, 8, 12), torch.randn(5, 12, 4), torch.randn(7, 12)
    router = torch.cat((torch.randn(4, 12), torch.zeros(1, 12)))
    x[:, 0], router[:4, 0] = 1.0, 20.0
    linear = ColumnParallelLinear(PlainLinear(router, None), ())
    got = DenseExperts(up, Activation.SILU, down)(x, *Router(linear, 2, normalise)(x, LinearStep(None)))
    for token, answer in zip(x, got, strict=True):
        weights, experts = (router @ token).softmax(0).topk(2)
        if normalise is not None:
            weights = weights / weights.norm(normalise)
        expected = torch.zeros(12)
        for weight, expert in zip(weights, experts.tolist(), strict=True):
            gate, rest = (up[expert] @ token).split(4)
            expected += weight * (down[expert] @ (torch.nn.functional.silu(gate) * rest))
        torch.testing.assert_close(answer, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 3, FEW_TOKENS + 1])
def test_llama_norms_for_few_and_many_tokens(tokens, dtype):
    x, weight = torch.randn(tokens, 16).to(dtype), torch.randn(16).to(dtype)
    exact = x.double() * torch.rsqrt(x.double().pow(2).mean(-1, keepdim=True) + 1e-5) * weight.double()
    torch.testing.assert_close(RmsNorm(weight, 1e-5)(x), exact.to(dtype))


def test_gemma_norms_round_once():
    x, weight = torch.randn(3, 16).bfloat16(), torch.randn(16).bfloat16()
    exact = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-5) * (1 + weight.float())
    torch.testing.assert_close(OffsetRmsNorm(weight, 1e-5, 1.0)(x), exact.bfloat16(), atol=0, rtol=2**-8)


def test_gates_come_first():
    x = torch.tensor([[-1.0, 2.0, 10.0, 100.0]])
    assert gated_activation(Activation.RELU)(x).tolist() == [[0.0, 200.0]]


@pytest.mark.parametrize(("gate", "other"), [(0.5, -0.25), (-20.0, 2.0), (30.0, 30.0), (1.0, -30.0)])
def test_a_gate_with_bounds_lets_one_more_through(gate, other):
    """Gates have no lower bound."""
    bounded = min(gate, 7.0)
    expected = (min(max(other, -7.0), 7.0) + 1) * bounded / (1 + math.exp(-1.702 * bounded))
    got = gated_activation(Activation.CLAMPED_SWIGLU)(torch.tensor([[gate, other]])).item()
    assert got == pytest.approx(expected, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 2, 3, 40])
@pytest.mark.parametrize("bias", [None, torch.randn(11)])
def test_the_fastest_kernel_multiplies_as_the_plain_one(dtype, tokens, bias):
    weight, x = torch.randn(11, 23).to(dtype), torch.randn(tokens, 23).to(dtype)
    bias = None if bias is None else bias.to(dtype)
    torch.testing.assert_close(dense_kernel(weight, bias)(x), PlainLinear(weight, bias)(x))


def test_a_kernel_takes_rows_that_lie_apart():
    weight, x = torch.randn(11, 23), torch.randn(5, 46)[:, :23]
    torch.testing.assert_close(dense_kernel(weight, None)(x), x @ weight.T)


def test_a_cut_and_padded_matrix_is_what_it_says():
    weight = torch.arange(12.0).view(4, 3)
    matrix = DenseMatrix(weight, torch.float32, CPU)
    piece = matrix.select_out(torch.tensor([3, 0])).join_out([matrix.select_out(slice(1, 2)).pad(2, 3)])
    x = torch.tensor([[1.0, 10.0, 100.0]])
    assert piece.finish(None)(x).tolist() == [[1209.0, 210.0, 543.0, 0.0]]
    assert matrix.select_in(slice(1, 3)).pad(4, 3).finish(None)(x).tolist() == [[21.0, 54.0, 87.0, 120.0]]
    assert matrix.transpose().finish(torch.ones(3))(torch.ones(1, 4)).tolist() == [[19.0, 23.0, 27.0]]
