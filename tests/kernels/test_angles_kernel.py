"""Cosines and sines of a step against the twin, and against float64."""

import pytest
import torch

from text_generation_server.kernels.angles import angles
from text_generation_server.layers.frequencies import attention_factor, frequencies
from text_generation_server.layers.rotary import Rotary
from text_generation_server.specs.rope import DynamicScaling, LongropeScaling, RopeSpec, YarnScaling

CPU = torch.device("cpu")
FAR = 1 << 20
TWO_ULPS = 2**-22
ROUNDED = {torch.float32: 2 * TWO_ULPS, torch.bfloat16: 2**-7, torch.float16: 2**-10}


def drawn(tokens):
    """Positions, the first and a far one always among many, and the spans of their sequences."""
    positions = torch.randint(FAR, (tokens,), generator=torch.Generator().manual_seed(tokens))
    positions[: tokens // 2] %= 5000
    if tokens > 2:
        positions[0], positions[-1] = 0, FAR
    return positions, positions + 7


def check(device, spec, dtype=torch.float32, tokens=7):
    """The kernel's tables against those of the twin on the CPU."""
    positions, spans = drawn(tokens)
    expected = Rotary(spec, dtype, CPU).angles(positions, spans)
    by_span = frequencies(spec, CPU)(spans).to(device)
    got = angles(positions.to(device), by_span, attention_factor(spec), dtype)
    for table, wanted in zip(got, (expected.cos, expected.sin), strict=True):
        assert table.is_contiguous()
        torch.testing.assert_close(table.cpu(), wanted, rtol=ROUNDED[dtype], atol=2**-24)


@pytest.mark.parametrize("tokens", (1, 7, 300))
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float16))
def test_tables_are_those_of_the_twin(device, dtype, tokens):
    check(device, RopeSpec(64, 10000.0), dtype, tokens)


@pytest.mark.parametrize("dim", (2, 40, 80, 128, 192))
def test_any_even_number_of_dimensions(device, dim):
    check(device, RopeSpec(dim, 5e5), torch.bfloat16)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_a_magnitude_is_applied_before_rounding(device, dtype):
    check(device, RopeSpec(16, 10000.0, YarnScaling(8.0, 4096, 32.0, 1.0, 1.2079, truncate=True)), dtype)


@pytest.mark.parametrize("tokens", (1, 7))
@pytest.mark.parametrize(
    "scaling", [DynamicScaling(2.0, 4096), LongropeScaling((1.0,) * 10, tuple(range(2, 12)), 4096, 1.19)]
)
def test_frequencies_may_depend_on_the_span(device, scaling, tokens):
    check(device, RopeSpec(20, 10000.0, scaling), tokens=tokens)


def test_large_angles_are_reduced_exactly(device):
    """The product is rounded to float32, as everywhere; its cosine and sine are off by two units at most."""
    positions = torch.cat((torch.arange(FAR - 500, FAR), torch.arange(500) * 210))
    by_pair = torch.tensor((1.0, 0.7310, 0.0123))
    exact = (positions[:, None].float() * by_pair).double()
    got = angles(positions.to(device), by_pair.to(device), 1.0, torch.float32)
    for table, wanted in zip(got, (exact.cos(), exact.sin()), strict=True):
        torch.testing.assert_close(table[:, 0, 3:].cpu().double(), wanted, rtol=TWO_ULPS, atol=0)


def test_the_first_half_of_the_sines_is_negative(device):
    positions, by_pair = torch.tensor((3, 5), device=device), torch.tensor((0.5, 0.1), device=device)
    cos, sin = angles(positions, by_pair, 1.0, torch.bfloat16)
    assert torch.equal(cos[..., :2], cos[..., 2:])
    assert torch.equal(sin[..., :2], -sin[..., 2:])
    assert (sin[..., 2:] > 0).all()


@pytest.mark.parametrize("tokens", (1, 7))
def test_pairs_may_turn_by_different_coordinates(device, tokens):
    coordinates = torch.stack([drawn(tokens)[0] * factor for factor in (1, 2, 3)])
    spec, axes = RopeSpec(12, 10000.0, axes=(0, 1, 1, 2, 0, 2)), torch.tensor((0, 1, 1, 2, 0, 2))
    expected = Rotary(spec, torch.float32, CPU).angles(coordinates, coordinates[0])
    by_pair = frequencies(spec, CPU)(coordinates[0]).to(device)
    got = angles(coordinates.to(device), by_pair, 1.0, torch.float32, axes.to(device))
    for table, wanted in zip(got, (expected.cos, expected.sin), strict=True):
        torch.testing.assert_close(table.cpu(), wanted, rtol=2 * TWO_ULPS, atol=2**-24)
    assert torch.equal(wanted[..., 6], (coordinates[0, :, None].float()).sin())
