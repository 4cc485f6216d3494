"""Norm kernels against torch in float32, rounded once."""

import pytest
import torch
import torch.nn.functional as F

from text_generation_server.kernels.norm import add_layer_norm, add_rms_norm, layer_norm, rms_norm

EPS = 1e-5
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
WIDTHS = (1, 33, 256, 640)
ULPS = {torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}
"""One step of a dtype between neighbours, relative: sums in another order may round the other way."""


def drawn(device, *shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator).to(device, dtype)


def assert_rounds_to(got, expected):
    """`expected` is in float32."""
    torch.testing.assert_close(got.float(), expected, rtol=ULPS[got.dtype], atol=1e-6)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_norm_is_that_of_torch(device, dtype, width):
    x = drawn(device, 3, width, dtype=dtype)
    weight = drawn(device, width, dtype=dtype)
    got = rms_norm(x, weight, EPS)
    assert got.dtype == dtype
    assert_rounds_to(got, F.rms_norm(x.float(), (width,), weight.float(), EPS))


def test_a_weight_may_be_more_precise_than_the_rows(device):
    x = drawn(device, 2, 48, dtype=torch.bfloat16)
    weight = 1 + drawn(device, 48) / 1000
    got = rms_norm(x, weight, EPS)
    assert_rounds_to(got, F.rms_norm(x.float(), (48,), weight, EPS))


def test_rows_may_lie_apart(device):
    x = drawn(device, 4, 96)[:, 16:56]
    weight = drawn(device, 40)
    assert_rounds_to(rms_norm(x, weight, EPS), F.rms_norm(x, (40,), weight, EPS))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_sum_is_kept_and_normed_as_kept(device, dtype, width):
    residual = drawn(device, 5, width, dtype=dtype)
    # Far from the stream's numbers, so that rounding the sum matters.
    delta = (300 * drawn(device, 5, width + 1)[:, :width]).to(dtype)
    weight = drawn(device, width, dtype=dtype)
    kept = residual + delta
    got = add_rms_norm(delta, residual, weight, EPS)
    assert_rounds_to(residual, kept.float())
    assert_rounds_to(got, F.rms_norm(residual.float(), (width,), weight.float(), EPS))


def test_a_stream_may_be_wider_than_what_is_added(device):
    residual, delta = drawn(device, 5, 40), drawn(device, 5, 41, dtype=torch.bfloat16)[:, :40]
    weight, kept = drawn(device, 40, dtype=torch.bfloat16), residual + delta
    got = add_rms_norm(delta, residual, weight, EPS)
    assert got.dtype is torch.bfloat16 and torch.equal(residual, kept)
    assert_rounds_to(got, F.rms_norm(kept, (40,), weight.float(), EPS))


@pytest.mark.parametrize("affine", [(False, False), (True, False), (True, True)], ids=["plain", "weight", "bias"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_layer_norm_is_that_of_torch(device, dtype, affine):
    width = 72
    x = 2 + drawn(device, 3, width, dtype=dtype)
    weight, bias = (drawn(device, width + i, dtype=dtype)[:width] if has else None for i, has in enumerate(affine))
    in_float32 = (None if part is None else part.float() for part in (weight, bias))
    expected = F.layer_norm(x.float(), (width,), *in_float32, EPS)
    torch.testing.assert_close(layer_norm(x, weight, bias, EPS).float(), expected, rtol=ULPS[dtype], atol=ULPS[dtype])


def test_layer_norm_of_a_sum(device):
    residual, delta = drawn(device, 3, 40), drawn(device, 4, 40)[:3]
    kept = residual + delta
    got = add_layer_norm(delta, residual, None, None, EPS)
    torch.testing.assert_close(residual, kept, rtol=0, atol=0)
    torch.testing.assert_close(got, F.layer_norm(kept, (40,), None, None, EPS), rtol=1e-5, atol=1e-6)


def test_the_sum_is_rounded_before_it_is_normed(device):
    residual = torch.full((2, 16), 256.0, dtype=torch.bfloat16, device=device)
    delta = torch.zeros_like(residual)
    delta[:, ::2] = 0.5  # less than half of a step between neighbours of 256
    got = add_layer_norm(delta, residual, None, None, EPS)
    assert (residual == 256.0).all()
    assert (got == 0.0).all()


def test_a_rows_result_does_not_depend_on_the_others(device):
    x, weight = drawn(device, 7, 200, dtype=torch.bfloat16), drawn(device, 200, dtype=torch.bfloat16)
    together = rms_norm(x, weight, EPS)
    alone = torch.cat([rms_norm(row[None], weight, EPS) for row in x])
    assert torch.equal(together, alone)
