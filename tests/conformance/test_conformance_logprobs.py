"""Log-probabilities, top tokens, seeds (docs/conformance.md#log-probabilities-and-top-tokens)."""

import math

import pytest

from conformance.caller import ids_of, logprobs_of
from conformance.recitals import always, logits_of
from mocks.mock_model import MockModel

A, B, C, D = b"ABCD"
DISTINCT = {A: 3.0, B: 2.0, C: 1.0, D: 0.0}
TIED = {A: 3.0, B: 2.0, C: 2.0, D: 2.0}


def log_softmax(scores: dict[int, float]) -> dict[int, float]:
    norm = math.log(sum(math.exp(score) for score in logits_of(scores)))
    return {token: score - norm for token, score in scores.items()}


def first(caller, **changes):
    return caller.answer(caller.request(1, "hi", 2, **changes))[0]


@pytest.fixture
def distinct(start):
    return start(model=MockModel(logits=always(DISTINCT))).v3


@pytest.fixture
def tied(start):
    return start(model=MockModel(logits=always(TIED))).v3


def test_c080_a_greedy_logprob_is_the_raw_one(distinct):
    answer = first(distinct)
    assert list(answer.tokens.ids) == [A]
    assert answer.tokens.logprobs[0] == pytest.approx(log_softmax(DISTINCT)[A], abs=1e-5)


def test_c081_the_only_token_left_is_certain(distinct):
    answer = distinct.answer(distinct.request(1, "hi", 3, parameters={"top_k": 1, "seed": 3}))
    assert ids_of(answer) == [A] * 3 and logprobs_of(answer) == [0.0] * 3


def test_c082_top_tokens_are_the_best_in_order(distinct):
    (top,) = first(distinct, top_n_tokens=3).top_tokens
    assert list(top.ids) == [A, B, C] and list(top.texts) == ["A", "B", "C"] and list(top.is_special) == [False] * 3
    expected = log_softmax(DISTINCT)
    assert list(top.logprobs) == pytest.approx([expected[token] for token in (A, B, C)], abs=1e-5)


def test_c083_ties_with_the_last_are_all_there(tied):
    (top,) = first(tied, top_n_tokens=2).top_tokens
    assert top.ids[0] == A and sorted(top.ids[1:]) == [B, C, D]


def test_c084_impossible_tokens_are_not_listed(distinct):
    (top,) = first(distinct, top_n_tokens=5, parameters={"top_k": 2}).top_tokens
    assert list(top.ids) == [A, B]
    assert sum(math.exp(logprob) for logprob in top.logprobs) == pytest.approx(1.0, abs=1e-5)


def test_c085_only_who_asks_gets_top_tokens(distinct):
    step = distinct.prefill(0, distinct.request(1), distinct.request(2, top_n_tokens=2))
    assert [len(g.top_tokens) for g in step.generations] == [0, 1]
    assert len(step.generations[1].top_tokens[0].ids) == 2


@pytest.mark.parametrize("version", ["v2", "v3"])
@pytest.mark.parametrize("seed", [0, 7, 2**63, 2**64 - 1])
def test_c086_a_seed_is_told_by_who_used_it(start, version, seed):
    caller = start(model=MockModel(logits=always(DISTINCT))).caller(version)
    greedy = caller.answer(caller.request(1, parameters={"seed": seed}))[-1].generated_text
    drawn = caller.answer(caller.request(1, parameters={"seed": seed, "do_sample": True}))[-1].generated_text
    assert not greedy.HasField("seed") and drawn.HasField("seed") and drawn.seed == seed
