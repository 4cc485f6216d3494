"""Experts of few bits by each of the ways that a GPU takes, against one expert at a time."""

import pytest
import torch

from text_generation_server.layers.moe import ExpertBiases, ExpertsAddend
from text_generation_server.quantization.coded import Coded
from text_generation_server.quantization.coded_experts import CodedExperts
from text_generation_server.quantization.dense import DenseScheme
from text_generation_server.quantization.dense_experts import DenseExperts
from text_generation_server.specs.activation import Activation

EXPERTS, HIDDEN, INNER, TOKENS, CHOICES = 6, 64, 40, 5, 2


@pytest.fixture
def dtype():
    """That is computed with."""
    return torch.float32


@pytest.fixture(params=[False, True], ids=["", "order"])
def coded(request, dtype):
    """Matrices of all experts, their inputs in any order or not."""
    dense = DenseScheme(dtype, torch.device("cpu"))
    torch.manual_seed(0)

    def matrix(outputs, inputs):
        groups = torch.arange(inputs) // 32
        groups = groups[torch.randperm(inputs)] if request.param else groups
        shape = EXPERTS * outputs, inputs
        scales = torch.rand(EXPERTS * outputs, int(groups.max()) + 1) / 8
        return Coded(torch.randint(16, shape, dtype=torch.uint8), scales, groups, dense, 4, zero=8)

    return matrix(2 * INNER, HIDDEN), matrix(HIDDEN, INNER)


class Added:
    """An addend that tells which number and which inputs it was asked with."""

    def __init__(self, outputs, inputs, dtype):
        self._factors = torch.randn(2 * EXPERTS + 1, dtype=dtype)
        self._factors[0] = 0
        self._matrix = torch.randn(inputs, outputs, dtype=dtype) / inputs

    def __call__(self, x, numbers, step):
        assert step.adapters is numbers
        return lambda out: out + self._factors[numbers][:, None] * (x @ self._matrix)


@pytest.fixture(params=[False, True], ids=["plain", "adapted"])
def addend(request, dtype):
    """Of two adapters, for some of the tokens, or none."""
    adapters = torch.tensor([1, 0, 2, 2, 0])
    up, down = Added(2 * INNER, HIDDEN, dtype), Added(HIDDEN, INNER, dtype)
    return ExpertsAddend(adapters, EXPERTS, up, down) if request.param else None


@pytest.fixture(params=[False, True], ids=["", "biases"])
def biases(request, dtype):
    """Of all experts, or none."""
    drawn = (torch.randn(EXPERTS, outputs, dtype=dtype) for outputs in (2 * INNER, HIDDEN))
    return ExpertBiases(*drawn) if request.param else None


def test_each_way_gives_the_same(coded, addend, biases):
    up, down = coded
    made = CodedExperts(up, Activation.SILU, down, EXPERTS, biases)
    up_plain, down_plain = up.plain().view(EXPERTS, -1, HIDDEN), down.plain().view(EXPERTS, -1, INNER)
    plain = DenseExperts(up_plain, Activation.SILU, down_plain, biases)
    x, weights = torch.randn(TOKENS, HIDDEN), torch.rand(TOKENS, CHOICES)
    experts = torch.rand(TOKENS, EXPERTS).topk(CHOICES).indices
    expected = plain(x, experts, weights, addend)
    for way in (made, made.by_choice, made.all_at_once):
        torch.testing.assert_close(way(x, experts, weights, addend), expected)


@pytest.mark.parametrize("dtype", [torch.float16])
def test_the_kernel_gives_the_same(coded, addend, biases):
    up, down = coded
    made = CodedExperts(up, Activation.SILU, down, EXPERTS, biases)
    x, weights = torch.randn(TOKENS, HIDDEN).half(), torch.rand(TOKENS, CHOICES).half()
    experts = torch.rand(TOKENS, EXPERTS).topk(CHOICES).indices
    expected = made.by_choice(x, experts, weights, addend).float()
    assert (made.by_expert(x, experts, weights, addend).float() - expected).norm() < 2e-3 * expected.norm()
