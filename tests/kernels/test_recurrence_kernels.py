"""Convolution and scans over rows of any lengths, against torch's, and the scans against plain loops in float64."""

import pytest
import torch
import torch.nn.functional as F

from text_generation_server.kernels.recurrence.conv import causal_conv
from text_generation_server.kernels.recurrence.scan import selective_scan
from text_generation_server.kernels.recurrence.ssd import ssd
from text_generation_server.layers.causal_conv import TorchConv
from text_generation_server.layers.recurrence import Answers, RecurrentPlan, ReplayedPlan
from text_generation_server.layers.selective_scan import ScanWeights, Selected, TorchScan
from text_generation_server.layers.ssd import SsdWeights, TorchSsd
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


def ssd_case(lengths, device, dtype=torch.float32, heads=4, head_dim=6, groups=2):
    """inputs, gate, steps; sums; the weights of heads, which decay fast and slowly."""
    tokens, width = sum(lengths), heads * head_dim
    inputs = numbers(tokens, width + 2 * groups * NUMBERS, seed=0, device=device, dtype=dtype)
    gate, steps = (numbers(tokens, n, seed=n, device=device, dtype=dtype) for n in (width, heads))
    sums = numbers(ROWS, width, NUMBERS, seed=2, device=device)
    decay = -numbers(heads, seed=3, device=device).exp() * torch.tensor([0.01, 0.3, 1.0, 4.0], device=device)
    skip, bias = numbers(2, heads, seed=4, device=device)
    return (inputs, gate, steps * 2 - 1), sums, SsdWeights(decay, skip, bias, head_dim, groups, (0.2, 1.5))


def ssd_on(weights, device):
    per_head = (each.to(device) for each in (weights.decay, weights.skip, weights.step_bias))
    return SsdWeights(*per_head, weights.head_dim, weights.groups, weights.limits)


LONG_LENGTHS = [*LENGTHS, (150, 1, 64)]


@pytest.mark.parametrize("lengths", LONG_LENGTHS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_heads_go_on_from_their_sums(device, lengths, dtype):
    """In products of a chunk's tokens, inputs are of their own type."""
    plan = plan_of(lengths, device)
    given, sums, weights = ssd_case(lengths, device, dtype)
    expected_sums = sums.cpu().clone()
    expected = TorchSsd(ssd_on(weights, "cpu"))(*(each.cpu() for each in given), expected_sums, on_cpu(plan))
    near = {"atol": 2e-2, "rtol": 2e-2} if dtype is torch.float16 else {"atol": 2e-4, "rtol": 1e-4}
    first_sums = sums.clone()
    for of_step, kept in ((plan, sums), (replayed(plan, lengths), first_sums)):
        per_head = weights.decay, weights.skip, weights.step_bias, weights.head_dim, weights.groups, weights.limits
        got = ssd(*given, kept, *step_of(of_step, given[1]), *per_head)
        torch.testing.assert_close(got.cpu(), expected, **near)
        torch.testing.assert_close(kept.cpu(), expected_sums, **near)


@pytest.mark.parametrize("lengths", LONG_LENGTHS, ids=str)
def test_torch_s_heads_are_the_recurrence(lengths):
    """Token by token in float64, as it is written down."""
    plan = plan_of(lengths, "cpu")
    given, sums, weights = ssd_case(lengths, "cpu")
    inputs, gate, steps = (each.double() for each in given)
    heads, width = steps.shape[1], gate.shape[1]
    x = inputs[:, :width].view(-1, heads, weights.head_dim)
    write, read = inputs[:, width:].view(-1, 2, weights.groups, NUMBERS).repeat_interleave(2, 2).unbind(1)
    expected_sums, expected = sums.double().view(ROWS, heads, weights.head_dim, NUMBERS), []
    for row, first, past in plan.on_host():
        kept = expected_sums[row]
        for at in range(first, past):
            step = F.softplus(steps[at] + weights.step_bias).clamp(*weights.limits)[:, None, None]
            kept.mul_((step * weights.decay[:, None, None]).exp())
            kept += step * x[at][..., None] * write[at][:, None]
            seen = (kept * read[at][:, None]).sum(-1) + weights.skip[:, None] * x[at]
            expected.append(seen.flatten() * F.silu(gate[at]))
    got = TorchSsd(weights)(*given, sums, plan)
    torch.testing.assert_close(got, torch.stack(expected).float(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(sums.view_as(expected_sums), expected_sums.float(), atol=1e-4, rtol=1e-4)
