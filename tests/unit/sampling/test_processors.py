"""Each logits processor against a slow one-row reference by its definition (docs/protocol.md#choosing-tokens)."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.generation.logits_process import MinPLogitsWarper

from text_generation_server.sampling.counts import CountsRows, TokenCounts
from text_generation_server.sampling.mass import cutoff
from text_generation_server.sampling.params import SamplingParams, WatermarkParams
from text_generation_server.sampling.processors import (
    AnswerPenalty,
    EarlyEnds,
    FrequencyPenalty,
    Grammar,
    LogitBias,
    LogitsProcessor,
    RepetitionPenalty,
    StepContext,
    Watermark,
)
from text_generation_server.sampling.rows import PlannedRows
from text_generation_server.sampling.warpers import WARPERS, MinP, Temperature, TopK, TopP, Typical, Warper

CPU = torch.device("cpu")
MARGIN = 1e-4
"""Cases that only rounding decides, fp32 here and fp64 in the reference, are left out."""

score_lists = st.lists(st.integers(-600, 600).map(lambda number: number / 64), min_size=2, max_size=40)
masses = st.floats(0.01, 0.99)


def run(
    kind: type[LogitsProcessor | Warper],
    params: Sequence[SamplingParams],
    scores: Tensor,
    histories: Sequence[list[int]] = (),
) -> Tensor:
    counts = TokenCounts(scores.shape[1], CPU)
    held = [counts.lend(row.penalises, row.penalises_answer) for row in params]
    for rows, history in zip(held, histories, strict=False):
        for row in rows:
            if row is not None:
                counts.reset(row, history)
    processor = kind.plan(PlannedRows(params, held, scores.shape[1], CPU, WatermarkParams()))
    assert processor is not None
    lengths = torch.tensor([len(history) for history in histories] or [1] * len(params))
    previous = torch.tensor([history[-1] for history in histories] or [0] * len(params))
    # Every grammar allows the even tokens.
    masks = torch.full((sum(bool(row.grammar) for row in params), math.ceil(scores.shape[1] / 32)), 0x55555555)
    # Warpers know the scores alone.
    step = () if kind in WARPERS else (StepContext(lengths, lengths - 2, counts, previous, masks.to(torch.int32)),)
    return processor(scores.clone(), *step)


def kept(scores: Tensor) -> list[set[int]]:
    return [set(row.isfinite().nonzero().flatten().tolist()) for row in scores]


def probabilities(scores: Sequence[float]) -> list[float]:
    weights = [math.exp(score - max(scores)) for score in scores]
    return [weight / sum(weights) for weight in weights]


def smallest_set(goodness: Sequence[float], probs: Sequence[float], share: float) -> set[int]:
    """The best entries whose probabilities reach `share`, with the ties of the last one."""
    mass = 0.0
    for entry in sorted(range(len(probs)), key=lambda entry: -goodness[entry]):
        mass += probs[entry]
        assume(abs(mass - share) > MARGIN)
        if mass >= share:
            assume(all(g == goodness[entry] or abs(g - goodness[entry]) > MARGIN for g in goodness))
            return {other for other, good in enumerate(goodness) if good >= goodness[entry]}
    return set(range(len(probs)))


@given(score_lists, st.integers(1, 45))
def test_top_k(scores: list[float], k: int) -> None:
    worst = sorted(scores, reverse=True)[min(k, len(scores)) - 1]
    processed = run(TopK, [SamplingParams(top_k=k)], torch.tensor([scores])) if k < len(scores) else None
    if processed is not None:
        assert kept(processed) == [{token for token, score in enumerate(scores) if score >= worst}]


@settings(derandomize=True)
@given(score_lists, masses)
def test_top_p(scores: list[float], p: float) -> None:
    expected = smallest_set(scores, probabilities(scores), p)
    assert kept(run(TopP, [SamplingParams(top_p=p)], torch.tensor([scores]))) == [expected]


@settings(derandomize=True)
@given(score_lists, masses)
def test_typical(scores: list[float], p: float) -> None:
    probs = probabilities(scores)
    entropy = -sum(prob * math.log(prob) for prob in probs)
    expected = smallest_set([-abs(-math.log(prob) - entropy) for prob in probs], probs, p)
    assert kept(run(Typical, [SamplingParams(typical_p=p)], torch.tensor([scores]))) == [expected]


@given(score_lists, st.floats(0.05, 5).filter(lambda penalty: penalty != 1.0), st.data())
def test_repetition_penalty(scores: list[float], penalty: float, data: st.DataObject) -> None:
    history = data.draw(st.lists(st.integers(0, len(scores) - 1), min_size=1))
    expected = [
        score if token not in history else score * penalty if score < 0 else score / penalty
        for token, score in enumerate(scores)
    ]
    processed = run(RepetitionPenalty, [SamplingParams(repetition_penalty=penalty)], torch.tensor([scores]), [history])
    assert processed[0].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)


@given(score_lists, st.floats(-2, 2).filter(bool), st.data())
def test_frequency_penalty(scores: list[float], penalty: float, data: st.DataObject) -> None:
    history = data.draw(st.lists(st.integers(0, len(scores) - 1), min_size=1))
    expected = [score - penalty * history.count(token) / len(history) for token, score in enumerate(scores)]
    processed = run(FrequencyPenalty, [SamplingParams(frequency_penalty=penalty)], torch.tensor([scores]), [history])
    assert processed[0].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)


@given(score_lists, st.floats(-2, 2), st.floats(-2, 2).filter(bool), st.data())
def test_answer_penalties(scores: list[float], count: float, presence: float, data: st.DataObject) -> None:
    """OpenAI's own formula: mu[j] - c[j] * alpha_frequency - float(c[j] > 0) * alpha_presence."""
    answer = data.draw(st.lists(st.integers(0, len(scores) - 1), min_size=1))
    times = [answer.count(token) for token in range(len(scores))]
    expected = [score - c * count - float(c > 0) * presence for score, c in zip(scores, times, strict=True)]
    params = SamplingParams(count_penalty=count, presence_penalty=presence)
    processed = run(AnswerPenalty, [params], torch.tensor([scores]), [answer])
    assert processed[0].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)


@settings(derandomize=True)
@given(score_lists, st.floats(0.01, 1.0))
def test_min_p_keeps_what_transformers_keeps(scores: list[float], p: float) -> None:
    probs = probabilities(scores)
    assume(all(abs(prob - p * max(probs)) > MARGIN * max(probs) for prob in probs))
    theirs = MinPLogitsWarper(p)(torch.zeros(1, 1, dtype=torch.int64), torch.tensor([scores]))
    assert kept(run(MinP, [SamplingParams(min_p=p)], torch.tensor([scores]))) == kept(theirs)


def test_an_end_comes_early_only_where_nothing_else_may_follow() -> None:
    params = SamplingParams(least=1, ends=(1, 3))
    scores = torch.tensor([[1.0, 3.0, 2.0, 4.0]])
    early, late = run(EarlyEnds, [params], scores, [[0, 0]]), run(EarlyEnds, [params], scores, [[0, 0, 0]])
    assert early.tolist() == [[1.0, -math.inf, 2.0, -math.inf]] and torch.equal(late, scores)
    forced = torch.tensor([[-math.inf, 3.0, -math.inf, -math.inf]])  # as a grammar leaves it whose text is complete
    assert torch.equal(run(EarlyEnds, [params], forced, [[0, 0]]), forced)


@given(score_lists, st.floats(0.01, 10))
def test_temperature(scores: list[float], temperature: float) -> None:
    assume(temperature != 1.0)
    processed = run(Temperature, [SamplingParams(temperature=temperature)], torch.tensor([scores]))
    assert processed[0].tolist() == pytest.approx([score / temperature for score in scores], rel=1e-5)


@pytest.mark.parametrize("temperature", [1e-3, 1e-20, 1e-45])
def test_tiny_temperatures_leave_one_token_and_no_nan(temperature: float) -> None:
    processed = run(Temperature, [SamplingParams(temperature=temperature)], torch.tensor([[80.0, -3.0, 79.0]]))
    assert processed.softmax(-1).tolist() == [[1.0, 0.0, 0.0]]


def test_ties_with_the_last_kept_token_stay() -> None:
    scores = torch.tensor([[1.0, 3.0, 1.0, 0.0, 1.0]])
    assert kept(run(TopK, [SamplingParams(top_k=2)], scores)) == [{0, 1, 2, 4}]
    assert kept(run(TopP, [SamplingParams(top_p=0.8)], scores)) == [{0, 1, 2, 4}]
    assert kept(run(Typical, [SamplingParams(typical_p=0.1)], torch.zeros(1, 5))) == [{0, 1, 2, 3, 4}]


@pytest.mark.parametrize("kind", [TopP, Typical])
def test_a_tiny_mass_keeps_a_token_and_a_mass_near_one_keeps_all(kind: type[LogitsProcessor | Warper]) -> None:
    scores = torch.tensor([[0.5, 2.0, -1.0, 1.0]])
    tiny, near_one = 1e-30, 1.0 - 1e-12
    assert len(kept(run(kind, [SamplingParams(top_p=tiny, typical_p=tiny)], scores))[0]) == 1
    assert kept(run(kind, [SamplingParams(top_p=near_one, typical_p=near_one)], scores)) == [{0, 1, 2, 3}]


@pytest.mark.parametrize("spread", [0.001, 1.0, 20.0], ids=["flat", "usual", "peaked"])
@pytest.mark.parametrize("p", [0.2, 0.9])
def test_large_vocabularies_are_cut_like_small_ones(spread: float, p: float) -> None:
    """Flat rows need more than the prefix of best tokens that is tried first; both kinds share a step here."""
    scores = torch.randn(3, 5_000, generator=torch.Generator().manual_seed(0)) * torch.tensor([[spread], [1.0], [9.0]])
    processed = run(TopP, [SamplingParams(top_p=p)] * 3, scores)
    for row, kept_tokens in zip(scores, kept(processed), strict=True):
        ranked = row.double().softmax(-1).sort(descending=True)
        needed = int((ranked.values.cumsum(-1) < p).sum()) + 1
        assert abs(len(kept_tokens) - needed) <= 1
        assert kept_tokens <= set(ranked.indices[: needed + 1].tolist())


@pytest.mark.parametrize("kind", [TopK, TopP, Typical, Temperature])
def test_masked_tokens_stay_masked_and_disturb_nothing(kind: type[LogitsProcessor | Warper]) -> None:
    params = SamplingParams(top_k=2, top_p=0.9, typical_p=0.9, temperature=0.5)
    scores = torch.tensor([[1.0, -math.inf, 0.5, -math.inf, -1.0]])
    processed, without = run(kind, [params], scores), run(kind, [params], scores[:, [0, 2, 4]])
    assert torch.equal(processed[:, [0, 2, 4]], without)
    assert processed[:, [1, 3]].tolist() == [[-math.inf, -math.inf]]


ROW_KINDS: list[tuple[type[LogitsProcessor | Warper], SamplingParams]] = [
    (Watermark, SamplingParams(watermark=True)),
    (Grammar, SamplingParams(grammar="any")),
    (RepetitionPenalty, SamplingParams(repetition_penalty=1.3)),
    (FrequencyPenalty, SamplingParams(frequency_penalty=0.7)),
    (Temperature, SamplingParams(temperature=0.6)),
    (TopK, SamplingParams(top_k=5)),
    (TopP, SamplingParams(top_p=0.6)),
    (Typical, SamplingParams(typical_p=0.6)),
    (MinP, SamplingParams(min_p=0.3)),
    (LogitBias, SamplingParams(logit_bias=((4, 2.0), (9, -100.0)))),
    (AnswerPenalty, SamplingParams(presence_penalty=0.5, count_penalty=0.25)),
    (EarlyEnds, SamplingParams(least=2, ends=(1, 7))),
]


@pytest.mark.parametrize(("kind", "params"), ROW_KINDS, ids=[kind.__name__ for kind, _ in ROW_KINDS])
def test_rows_that_do_not_ask_are_untouched(kind: type[LogitsProcessor | Warper], params: SamplingParams) -> None:
    scores = torch.randn(4, 50, generator=torch.Generator().manual_seed(1))
    histories = [[1, 2, 3]] * 4  # of which one is the answer
    mixed = run(kind, [SamplingParams(), params, SamplingParams(), params], scores, histories)
    assert torch.equal(mixed[[0, 2]], scores[[0, 2]])
    assert torch.equal(mixed[[1]], run(kind, [params], scores[[1]], histories[:1]))
    assert not torch.equal(mixed[[1, 3]], scores[[1, 3]])


@pytest.mark.parametrize("kind", [kind for kind, _ in ROW_KINDS], ids=lambda kind: kind.__name__)
def test_nothing_is_planned_for_neutral_rows(kind: type[LogitsProcessor | Warper]) -> None:
    rows = PlannedRows([SamplingParams(), SamplingParams(top_k=50)], [CountsRows()] * 2, 50, CPU, WatermarkParams())
    assert kind.plan(rows) is None


@pytest.mark.parametrize(("share", "last"), [(0.25, 3.0), (0.5, 3.0), (0.5001, 2.0), (0.75, 2.0), (0.9, 1.0)])
def test_a_share_that_is_reached_exactly_needs_no_further_entry(share: float, last: float) -> None:
    goodness, probs = torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([[0.25, 0.5, 0.25]])
    assert cutoff(goodness, probs, torch.tensor([[share]], dtype=torch.float64)).tolist() == [[last]]


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 9), max_size=12), min_size=1, max_size=20), st.randoms())
def test_counts_follow_their_rows_through_growth_and_reuse(histories: list[list[int]], random: object) -> None:
    counts = TokenCounts(10, CPU)
    choose: Callable[[list[int]], int] = random.choice  # type: ignore[attr-defined]
    held: dict[int, list[int]] = {}
    for history in histories:
        if held and choose([0, 1]):
            counts.release(given_back := choose(list(held)))
            del held[given_back]
        row = counts.take()
        assert row not in held
        counts.reset(row, history)
        held[row] = list(history)
        drawn = [choose(list(range(10))) for _ in held]
        counts.add(torch.tensor(list(held)), torch.tensor(drawn))
        for token, tokens in zip(drawn, held.values(), strict=True):
            tokens.append(token)
        table = counts.of(torch.tensor(list(held))).tolist()
        assert table == [[tokens.count(token) for token in range(10)] for tokens in held.values()]
    assert max(held) < len(histories)
