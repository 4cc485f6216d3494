"""Choosing tokens in few kernels against torch's operations."""

import math

import pytest
import torch

from text_generation_server.kernels.sampling.best import CHUNK, best_token, survey
from text_generation_server.kernels.sampling.cut import TALLY, cut
from text_generation_server.sampling.counts import CountsRows
from text_generation_server.sampling.fused import Fused
from text_generation_server.sampling.methods import MixedMethod, Warped, plan_method
from text_generation_server.sampling.params import SamplingParams, WatermarkParams
from text_generation_server.sampling.rows import PlannedRows
from text_generation_server.sampling.uniforms import uniform

# The interpreter is numpy: it warns where a device makes NaN, which is what these rows hold.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:divide by zero:RuntimeWarning")

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
LAST_UNIFORM = 1 - 2**-24
GREEDY = SamplingParams()
DRAWN = SamplingParams(do_sample=True)
ASKED = [
    GREEDY,
    DRAWN,
    SamplingParams(temperature=0.8, top_k=50, top_p=0.9),
    SamplingParams(top_k=1),
    SamplingParams(temperature=1.5, top_k=300),
    SamplingParams(top_p=0.9),
    SamplingParams(top_p=1e-30),
    SamplingParams(temperature=0.3, top_p=1 - 1e-12, top_k=4),
]


def normal(rows, vocab, device, spread=2.0, seed=0):
    return spread * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)).to(device)


def planned(params, vocab, device):
    return PlannedRows(params, [CountsRows()] * len(params), vocab, device, WatermarkParams())


def numbers(count, device, seed=5):
    return torch.tensor([uniform(seed, index) for index in range(count)], device=device)


def chosen(logits, params, uniforms):
    """Ids and log-probabilities by the kernels."""
    sampled = Fused.plan(planned(params, logits.shape[1], logits.device))(logits, uniforms)
    return sampled.ids, sampled.logprobs


def expected(logits, params, uniforms):
    """The same by torch's operations, which may write to what they get."""
    sampled = Warped.plan(planned(params, logits.shape[1], logits.device), [0] * len(params))(
        logits.float().clone(), uniforms
    )
    return sampled.ids, sampled.logprobs


def kept(logits, params, deep=True):
    """Which tokens the kernels leave of each row."""
    plan = Fused.plan(planned(params, logits.shape[1], logits.device))
    tallies = torch.empty(len(logits), TALLY, dtype=torch.int64, device=logits.device)
    found = survey(logits, cleared=tallies)
    thresholds = cut(logits, found, tallies, plan.temperatures, plan.top_k, plan.top_p, deep)
    bits = torch.where(thresholds < 0, thresholds ^ 0x7FFFFFFF, thresholds)
    return logits.float() >= bits.view(torch.float32).nan_to_num(-math.inf)[:, None]


def warped(logits, params):
    scores = logits.float().clone()
    for warper in Warped.plan(planned(params, logits.shape[1], logits.device), [0] * len(params)).warpers:
        scores = warper(scores)
    return scores > -math.inf


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("vocab", [1, 9, 1000, CHUNK, 5003])
def test_the_best_token_and_its_probability(device, dtype, vocab):
    logits = normal(3, vocab, device).to(dtype)
    ids, logprobs = best_token(logits)
    assert torch.equal(ids, logits.float().argmax(-1))
    assert logprobs.tolist() == pytest.approx(logits.float().log_softmax(-1).amax(-1).tolist(), abs=1e-5)


def test_rows_may_be_parts_of_longer_ones(device):
    logits = normal(3, 2 * CHUNK + 40, device)
    part = logits[:, : CHUNK + 10]
    assert torch.equal(best_token(part)[0], part.argmax(-1))
    drawn, uniforms = [DRAWN] * 3, numbers(3, device)
    assert torch.equal(chosen(part, drawn, uniforms)[0], expected(part, drawn, uniforms)[0])


def test_the_first_of_equals_is_best(device):
    logits = torch.zeros(3, 2 * CHUNK + 5, device=device)
    logits[1, [CHUNK + 3, CHUNK + 2, 2 * CHUNK + 1]] = 1.0
    logits[2], logits[2, 7], logits[2, 9] = -1.0, -0.0, 0.0
    assert best_token(logits)[0].tolist() == [0, CHUNK + 2, 7]


def test_nan_is_best_and_an_impossible_row_harms_no_other(device):
    logits = torch.full((4, CHUNK + 5), -math.inf, device=device)
    logits[1, [CHUNK + 1, CHUNK + 3]] = math.nan
    logits[2, CHUNK + 4], logits[3, 1], logits[3, 2] = 3.0, 1.0, -1.0
    ids, logprobs = best_token(logits)
    assert ids.tolist() == [0, CHUNK + 1, CHUNK + 4, 1]
    assert logprobs[:2].isnan().all()
    assert logprobs[2:].tolist() == pytest.approx([0.0, -math.log1p(math.exp(-2))])


@pytest.mark.parametrize(("dtype", "vocab"), [(torch.bfloat16, 5003), (torch.float16, 1000), (torch.float32, 1000)])
@pytest.mark.parametrize("spread", [0.05, 2.0, 12.0], ids=["flat", "usual", "peaked"])
def test_each_row_gets_the_token_of_torchs_operations(device, dtype, vocab, spread):
    logits, uniforms = normal(len(ASKED), vocab, device, spread).to(dtype), numbers(len(ASKED), device)
    ids, logprobs = chosen(logits, ASKED, uniforms)
    true_ids, true_logprobs = expected(logits, ASKED, uniforms)
    assert torch.equal(ids, true_ids)
    assert logprobs.tolist() == pytest.approx(true_logprobs.tolist(), abs=2e-5)


@pytest.mark.parametrize(("dtype", "step"), [(torch.bfloat16, 0.0), (torch.float16, 0.5), (torch.float32, 1e-3)])
@pytest.mark.parametrize("temperature", [1e-45, 0.7, 1.0, 30.0])
def test_the_same_tokens_are_kept(device, dtype, step, temperature):
    """With many ties, where logits are rounded to a step."""
    asked = [(1, 1.0), (40, 1.0), (999, 1.0), (0, 0.1), (0, 0.9999), (7, 0.5), (700, 0.8), (2, 1e-30)]
    params = [SamplingParams(temperature=temperature, top_k=k, top_p=p) for k, p in asked]
    logits = normal(len(asked), 1000, device)
    logits = (torch.round(logits / step) * step if step else logits).to(dtype)
    logits[:, ::3] = -math.inf
    # What has no mass is never drawn, kept or not.
    scores = logits.float() / max(temperature, 1e-20)
    weighty = scores - scores.amax(-1, keepdim=True) > -27
    assert torch.equal(kept(logits, params) & weighty, warped(logits, params) & weighty)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("spike", [0.0, 8.0])
def test_many_tokens_around_the_cut(device, deep, spike):
    """More than are looked at together, on both sides of it, however often levels are tallied."""
    logits = normal(4, 6007, device, spread=0.01).bfloat16()
    logits[:, 77] += spike
    params = [SamplingParams(top_k=k, top_p=p) for k, p in ((0, 0.6), (3100, 1.0), (3100, 0.6), (5, 1.0))]
    assert torch.equal(kept(logits, params, deep), warped(logits, params))


@pytest.mark.parametrize("params", [SamplingParams(top_p=0.6), SamplingParams(top_k=2100)])
def test_ties_of_many_tokens(device, params):
    """Levels of a few values hold no token or too many."""
    logits = torch.arange(6007, device=device).remainder(3)[None].bfloat16()
    assert torch.equal(kept(logits, [params]), warped(logits, [params]))


def test_a_row_does_not_depend_on_the_others(device):
    logits, uniforms = normal(len(ASKED), 3001, device).bfloat16(), numbers(len(ASKED), device)
    ids, logprobs = chosen(logits, ASKED, uniforms)
    for row, params in enumerate(ASKED):
        part = slice(row, row + 1)
        alone = chosen(logits[part], [params], uniforms[part])
        assert (alone[0].item(), alone[1].item()) == (ids[row].item(), logprobs[row].item())


def test_the_dtype_of_the_logits_changes_nothing(device):
    """Penalties of one row turn the scores of all into fp32."""
    logits, uniforms = normal(len(ASKED), 3001, device).bfloat16(), numbers(len(ASKED), device)
    for got, same in zip(chosen(logits, ASKED, uniforms), chosen(logits.float(), ASKED, uniforms), strict=True):
        assert torch.equal(got, same)


@pytest.mark.parametrize("params", [DRAWN, SamplingParams(top_k=3), SamplingParams(top_p=0.99)])
def test_the_ends_of_the_distribution(device, params):
    logits = torch.full((2, 2 * CHUNK + 9), -math.inf, device=device)
    logits[:, [3, 5, CHUNK + 7]] = torch.tensor([1.0, 1.5, 1.0], device=device)
    ids, logprobs = chosen(logits, [params] * 2, torch.tensor([0.0, LAST_UNIFORM], device=device))
    assert ids.tolist() == [3, CHUNK + 7]
    assert logprobs.tolist() == pytest.approx([-math.log(2 + math.exp(0.5))] * 2, abs=1e-5)


def test_rows_without_any_mass_choose_some_token(device):
    logits = torch.zeros(3, 700, device=device)
    logits[0], logits[1, 4] = -math.inf, math.nan
    params = SamplingParams(temperature=0.9, top_k=9, top_p=0.9)
    ids, logprobs = chosen(logits, [params] * 3, numbers(3, device))
    assert (ids >= 0).all() and (ids < 700).all()
    assert logprobs[:2].isnan().all()
    assert ids[2] == expected(logits, [params] * 3, numbers(3, device))[0][2]


def test_no_rows(device):
    empty = torch.zeros(0, 100, device=device)
    assert best_token(empty)[0].shape == chosen(empty, [], torch.zeros(0, device=device))[0].shape == (0,)


def test_rows_with_other_wishes_go_their_own_way(device):
    params = [*ASKED[:3], SamplingParams(typical_p=0.7), ASKED[5], GREEDY, SamplingParams(min_p=0.2)]
    top_n = [0, 0, 0, 0, 2, 3, 0]
    logits, uniforms = normal(7, 900, device).bfloat16(), numbers(7, device)
    rows = planned(params, 900, device)
    split, plain = plan_method(rows, top_n, kernels=True), plan_method(rows, top_n, kernels=False)
    assert isinstance(split, MixedMethod) and isinstance(plain, Warped)
    got, same = split(logits, uniforms), plain(logits.float().clone(), uniforms)
    assert torch.equal(got.ids, same.ids)
    assert got.logprobs.tolist() == pytest.approx(same.logprobs.tolist(), abs=2e-5)
    assert got.top is not None and same.top is not None
    assert got.top.wanted == same.top.wanted
    assert torch.equal(got.top.ids, same.top.ids) and torch.equal(got.top.logprobs, same.top.logprobs)


def test_ordinary_rows_need_kernels_only(device):
    assert isinstance(plan_method(planned(ASKED, 99, device), [0] * len(ASKED), kernels=True), Fused)
    assert isinstance(plan_method(planned(ASKED, 99, device), [0] * len(ASKED), kernels=False), Warped)
