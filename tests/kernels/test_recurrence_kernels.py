"""Convolution and scan over rows of any lengths, against torch's, and the scan against a plain loop in float64."""

import pytest
import torch
import torch.nn.functional as F

from text_generation_server.kernels.recurrence.conv import causal_conv
from text_generation_server.kernels.recurrence.scan import selective_scan
from text_generation_server.layers.causal_conv import TorchConv
from text_generation_server.layers.recurrence import Answers, RecurrentPlan, ReplayedPlan
from text_generation_server.layers.selective_scan import ScanWeights, Selected, TorchScan
from text_generation_server.specs.activation import Activation

ROWS, NUMBERS = 7, 5
LENGTHS = [(1, 1, 1), (1,), (19, 1, 2), (40,)]
every_length = pytest.mark.parametrize("lengths", LENGTHS, ids=str)


def plan_of(lengths, device):
    ends = torch.tensor([0, *lengths], device=device).cumsum(0)
    return RecurrentPlan(torch.tensor([4, 0, 6][: len(lengths)], device=device), ends, max(lengths) == 1)


def replayed(plan, lengths):
    """The same as one of up to so many rows, by fewer programs than rows, with room behind the tokens."""
    prepared = ReplayedPlan(sum(lengths) + 3, plan.rows.device, Answers())
    prepared.prepare(plan.rows.tolist(), lengths, lengths)
    return prepared.plan


def numbers(*shape, seed, device, dtype=torch.float32):
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return drawn.to(device, dtype)


def on_cpu(plan):
    return RecurrentPlan(plan.rows.cpu(), plan.ends.cpu(), plan.are_singles)


def step_of(plan, x):
    """What kernels are told of a step."""
    return plan.rows, plan.ends, plan.are_singles, plan.count, plan.answer("", x)


@every_length
@pytest.mark.parametrize(("width", "taps", "dtype"), [(130, 4, torch.float32), (24, 3, torch.bfloat16)])
def test_a_convolution_goes_on_from_its_window(device, lengths, width, taps, dtype):
    plan, tokens = plan_of(lengths, device), sum(lengths)
    x = numbers(tokens, 2 * width, seed=0, device=device, dtype=dtype)[:, :width]
    weight, bias = (numbers(*shape, width, seed=1, device=device) for shape in ((taps,), ()))
    windows = numbers(ROWS, taps - 1, width, seed=2, device=device, dtype=dtype)
    expected_windows = windows.cpu().clone()
    twin = TorchConv(weight.cpu(), bias.cpu(), Activation.SILU)
    expected = twin(x.cpu(), expected_windows, on_cpu(plan))
    first_windows = windows.clone()
    got = causal_conv(x, windows, *step_of(plan, x), weight, bias, Activation.SILU)
    torch.testing.assert_close(got.cpu(), expected)
    assert torch.equal(windows.cpu(), expected_windows)
    longer = torch.cat((x, x[:3]))
    got = causal_conv(longer, first_windows, *step_of(replayed(plan, lengths), longer), weight, bias, Activation.SILU)
    torch.testing.assert_close(
        got.cpu(), torch.cat((expected, torch.zeros_like(expected[:1]).expand(len(got) - tokens, -1)))
    )
    assert torch.equal(first_windows.cpu(), expected_windows)


def test_a_convolution_may_have_no_bias(device):
    plan = plan_of((3,), device)
    x, weight, windows = (numbers(n, 8, seed=n, device=device) for n in (3, 4, 3 * ROWS))
    windows = windows.view(ROWS, 3, 8)
    expected = TorchConv(weight.cpu(), None, Activation.SILU)(x.cpu(), windows.cpu().clone(), on_cpu(plan))
    got = causal_conv(x, windows, *step_of(plan, x), weight, None, Activation.SILU)
    torch.testing.assert_close(got.cpu(), expected)


def scan_case(lengths, width, device, dtype=torch.float32):
    """x, gate, steps, write, read; sums; decay, skip and the bias of steps: small steps too, and one beyond 20."""
    tokens = sum(lengths)
    x, gate, steps = numbers(3, tokens, width, seed=0, device=device, dtype=dtype)
    steps = steps * 4 - 3
    steps[0, 0] = 30.0
    parts = numbers(tokens, 3 + 2 * NUMBERS, seed=1, device=device, dtype=dtype)
    write, read = parts[:, 3 : 3 + NUMBERS], parts[:, 3 + NUMBERS :]
    sums = numbers(ROWS, width, NUMBERS, seed=2, device=device)
    decay = -numbers(width, NUMBERS, seed=3, device=device).exp()
    skip, bias = numbers(2, width, seed=4, device=device)
    return (x, gate, steps, write, read), sums, (decay, skip, bias)


@every_length
@pytest.mark.parametrize(("width", "dtype"), [(70, torch.float32), (16, torch.bfloat16)])
def test_a_scan_goes_on_from_its_sums(device, lengths, width, dtype):
    plan = plan_of(lengths, device)
    given, sums, weights = scan_case(lengths, width, device, dtype)
    expected_sums = sums.cpu().clone()
    x, gate, *selected = (each.cpu() for each in given)
    twin = TorchScan(ScanWeights(*(weight.cpu() for weight in weights)))
    expected = twin(x, gate, Selected(*selected), expected_sums, on_cpu(plan))
    first_sums = sums.clone()
    for of_step, kept in ((plan, sums), (replayed(plan, lengths), first_sums)):
        got = selective_scan(*given, kept, *step_of(of_step, given[0]), *weights)
        torch.testing.assert_close(got.cpu(), expected, atol=1e-5, rtol=2e-2 if dtype is torch.bfloat16 else 1e-5)
        torch.testing.assert_close(kept.cpu(), expected_sums, atol=1e-5, rtol=1e-5)


@every_length
def test_torch_s_scan_is_the_recurrence(lengths):
    """Token by token in float64, as it is written down."""
    plan = plan_of(lengths, "cpu")
    given, sums, weights = scan_case(lengths, 6, "cpu")
    x, gate, steps, write, read = (each.double() for each in given)
    decay, skip, bias = (weight.double() for weight in weights)
    expected_sums, expected = sums.double(), []
    for row, first, past in zip(plan.rows, plan.ends, plan.ends[1:], strict=False):
        kept = expected_sums[int(row)]
        for at in range(first, past):
            step = F.softplus(steps[at] + bias)
            kept.mul_((step[:, None] * decay).exp()).add_((step * x[at])[:, None] * write[at])
            expected.append((kept @ read[at] + skip * x[at]) * F.silu(gate[at]))
    x, gate, *selected = given
    got = TorchScan(ScanWeights(*weights))(x, gate, Selected(*selected), sums, plan)
    torch.testing.assert_close(got, torch.stack(expected).float(), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(sums, expected_sums.float(), atol=1e-5, rtol=1e-5)
