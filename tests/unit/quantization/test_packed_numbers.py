"""Whole numbers in words, and coded weights on their way to kernels: any bits, cut and order against plain indexing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles.quantised import bit_stream
from text_generation_server.kernels.matmul.packed import multiply
from text_generation_server.quantization.bits import PackedNumbers
from text_generation_server.quantization.coded import Coded
from text_generation_server.quantization.coded_kernels import UnpackingLinear
from text_generation_server.quantization.dense import DenseScheme
from text_generation_server.quantization.processor import Int4Linear, Int8Linear

CPU = torch.device("cpu")
DENSE = DenseScheme(torch.float32, CPU)


def cuts(size):
    """A range of these, or some of them in any order."""
    ends = st.tuples(st.integers(0, size), st.integers(0, size)).map(lambda pair: slice(*sorted(pair)))
    return ends | st.lists(st.integers(0, size - 1), max_size=2 * size).map(
        lambda n: torch.tensor(n, dtype=torch.int64)
    )


@given(st.data(), st.sampled_from([2, 3, 4, 8]), st.sampled_from([0, 1]))
def test_any_part_is_read_as_it_was_packed(data, bits, axis):
    numbers = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 2**bits, (5, 64))
    words, numbers = bit_stream(numbers, bits), torch.from_numpy(numbers)
    if axis == 0:
        words, numbers = words.T, numbers.T
    rows, columns = (data.draw(cuts(size)) for size in numbers.shape)
    got = PackedNumbers(words, bits, axis, CPU).read(rows, columns)
    assert torch.equal(got, numbers[rows][:, columns].to(torch.uint8))


@given(
    st.integers(0, 99),
    st.lists(st.integers(1, 70), min_size=1, max_size=5),
    st.booleans(),
    st.sampled_from([4, 8]),
    st.sampled_from([None, "zeros", "minima"]),
)
def test_any_groups_and_order_multiply_as_their_weights(seed, sizes, shuffled, bits, origins):
    """Groups of any sizes, in order or not, with rows and columns of zeros."""
    torch.manual_seed(seed)
    groups = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    groups = groups[torch.randperm(len(groups))] if shuffled else groups
    codes = torch.randint(2**bits, (3, len(groups)), dtype=torch.uint8)
    scales = torch.rand(3, len(sizes)) / 2**bits
    zeros = torch.randint(2**bits, scales.shape, dtype=torch.uint8) if origins == "zeros" else None
    minima = torch.rand(scales.shape) if origins == "minima" else None
    coded = Coded(codes, scales, groups, DENSE, bits, zeros, zero=2 ** (bits - 1), minima=minima)
    rows, columns = torch.rand(3) < 0.2, torch.rand(len(groups)) < 0.2
    if columns.any() or rows.any():
        coded = coded.without(rows, columns)
    origin = torch.full(scales.shape, 2.0 ** (bits - 1)) if zeros is None else zeros.float()
    expected = (codes.float() - origin[:, groups]) * scales[:, groups]
    expected -= 0 if minima is None else minima[:, groups]
    expected[rows], expected[:, columns] = 0, 0
    torch.testing.assert_close(coded.plain(), expected)
    x = torch.randn(2, len(groups))
    torch.testing.assert_close(coded.linear(None)(x), x @ expected.T)
    weight, order = coded.packed()
    assert weight.size >= 16
    if order is None:
        torch.testing.assert_close(multiply(x, weight, None), x @ expected.T)


@pytest.mark.parametrize("experts", [1, 5])
def test_what_has_the_same_groups_is_in_one_matrix(experts):
    groups = torch.arange(64) // 32
    parts = [
        Coded(torch.randint(16, (4, 64), dtype=torch.uint8), torch.rand(4, 2), groups, DENSE, 4, zeros, zero=8)
        for _ in range(experts)
        for zeros in (None, torch.randint(16, (4, 2), dtype=torch.uint8))
    ]
    assert all(parts[0].fits(part) for part in parts)
    whole = parts[0].joined(parts[1:])
    torch.testing.assert_close(whole.plain(), torch.cat([part.plain() for part in parts]))
    assert not parts[0].fits(Coded(parts[0].codes, parts[0].scales, groups.flip(0), DENSE, 4, zero=8))


@pytest.mark.parametrize("bias", [None, torch.linspace(-1, 1, 48)], ids=["", "bias"])
@pytest.mark.parametrize(
    ("bits", "size", "origins", "kernel"),
    [
        (4, 32, "zeros", Int4Linear),
        (4, 32, "minima", Int4Linear),
        (4, 64, None, Int4Linear),
        (4, 192, None, Int4Linear),
        (4, 16, None, UnpackingLinear),
        (8, 192, None, Int8Linear),
        (8, 192, "minima", UnpackingLinear),
        (8, 64, None, UnpackingLinear),
    ],
)
def test_a_processor_s_own_kernels_multiply_what_they_can(bits, size, origins, kernel, bias):
    dense = DenseScheme(torch.bfloat16, CPU)
    groups, generator = torch.arange(192) // size, torch.Generator().manual_seed(size)
    codes = torch.randint(2**bits, (48, 192), generator=generator, dtype=torch.uint8)
    codes = codes if bits == 4 else codes.view(torch.int8)
    scales = (torch.rand(48, 192 // size, generator=generator) + 0.5) / 2**bits
    zeros = torch.randint(16, scales.shape, generator=generator, dtype=torch.uint8) if origins == "zeros" else None
    minima = torch.rand(scales.shape, generator=generator) if origins == "minima" else None
    coded = Coded(codes, scales, groups, dense, bits, zeros, zero=8 if bits == 4 else 0, minima=minima)
    x = torch.randn(20, 192, generator=generator).bfloat16()
    multiplying = coded.linear(None if bias is None else bias.bfloat16())
    weight, _ = coded.packed()
    expected = torch.nn.functional.linear(x.float(), weight.plain(torch.float32), bias)
    assert isinstance(multiplying, kernel)
    for rows in (3, 20):
        got = multiplying(x[:rows]).float()
        assert (got - expected[:rows]).norm() < 0.01 * expected[:rows].norm()
