"""Prompts in chunks: through Decode, through Prefill with a cached batch (docs/conformance.md#chunks)."""

import math

import pytest

from conformance.caller import LENGTH, Caller, batch_of, ids_of, logprobs_of
from mocks.mock_model import greedy_continuation

LONG, SHORT = bytes(range(40, 60)).decode(), "abcdef"
"""The worked example's prompts of 20 and 6 tokens."""


def expected(text: str, new: int) -> list[int]:
    return greedy_continuation(text.encode(), new, ignore_eos=True)


@pytest.fixture(params=[True, False], ids=["run-ahead", "no-run-ahead"])
def run_ahead(request) -> bool:
    return request.param


@pytest.fixture
def shard(run_ahead, start):
    """The worked example's budget: 8 prompt tokens a step."""
    return start(run_ahead=run_ahead, max_prefill_tokens=8)


@pytest.fixture
def caller(shard) -> Caller:
    return shard.v3


def test_c043_c044_c045_c046_the_worked_example(shard, caller, run_ahead):
    step = caller.prefill(0, caller.request(0, LONG, 4, chunk_len=8))
    assert list(step.generations) == [] and batch_of(step) == (0, [0], 1)
    assert step.batch.current_tokens == 8
    step = caller.decode(0)
    assert list(step.generations) == [] and step.batch.current_tokens == 4
    step = caller.prefill(1, caller.request(1, SHORT, 4, chunk_len=4), cached=0)
    assert [g.request_id for g in step.generations] == [0] and batch_of(step) == (0, [0, 1], 2)
    assert step.batch.current_tokens == (5 if run_ahead else 3) and step.HasField("concat_ns")
    first = ids_of(step.generations)
    step = caller.decode(0)
    assert {g.request_id for g in step.generations} == ({0} if run_ahead else {0, 1})
    assert step.batch.current_tokens == (3 if run_ahead else 2)
    rest = caller.run_out(step)
    assert first + ids_of(rest[0]) == expected(LONG, 4) and ids_of(rest[1]) == expected(SHORT, 4)
    shard.assert_idle()


@pytest.mark.parametrize("chunk", [1, 3, 8, 19, 20])
def test_c047_chunks_change_neither_tokens_nor_logprobs(caller, chunk):
    whole = caller.answer(caller.request(1, LONG, 6))
    parts = caller.answer(caller.request(2, LONG, 6, chunk_len=chunk))
    assert ids_of(parts) == ids_of(whole) == expected(LONG, 6)
    assert logprobs_of(parts) == pytest.approx(logprobs_of(whole), abs=1e-5)


def test_c048_a_chunk_of_all_that_is_left_ends_the_prompt(caller):
    caller.answer(caller.request(1, LONG, 1, slots=range(20)))
    step = caller.prefill(0, caller.request(2, LONG, 4, slots=range(23), cache_len=8, chunk_len=12))
    assert ids_of(step.generations) == expected(LONG, 4)[:1]


def test_c049_every_prompt_advances_when_the_budget_is_spent(start):
    caller = start(max_prefill_tokens=2).v3
    texts = {i: f"prompt no {i}" for i in range(3)}
    step = caller.prefill(0, *(caller.request(i, text, 3, chunk_len=1) for i, text in texts.items()))
    steps = 1
    while not step.generations:
        assert step.batch.current_tokens >= 3
        step, steps = caller.decode(0), steps + 1
    assert steps <= 11
    assert {i: ids_of(g) for i, g in caller.run_out(step).items()} == {i: expected(t, 3) for i, t in texts.items()}


def test_c050_one_ends_while_the_other_is_still_being_prefilled(caller):
    caller.prefill(0, caller.request(0, SHORT, 2))
    step = caller.prefill(1, caller.request(1, LONG, 3, chunk_len=4), cached=0)
    (ended,) = step.generations
    assert (ended.request_id, ended.generated_text.finish_reason) == (0, LENGTH)
    assert batch_of(step) in [(0, [0, 1], 2), (0, [1], 1)]
    assert ids_of(caller.run_out(caller.decode(0))[1]) == expected(LONG, 3)


def test_c051_a_filter_in_mid_prompt_keeps_what_is_computed(shard, caller):
    caller.prefill(0, caller.request(0, "mate", 9), caller.request(1, LONG, 3, chunk_len=5))
    caller.decode(0)
    kept = caller.filter(0, [1])
    assert list(kept.request_ids) == [1] and 0 < kept.current_tokens <= 15
    before = shard.model.computed_tokens
    assert ids_of(caller.run_out(caller.decode(0))[1]) == expected(LONG, 3)
    assert shard.model.computed_tokens - before <= kept.current_tokens + 10
    shard.assert_idle()


def test_c052_prompt_logprobs_come_once_and_whole(caller):
    whole = caller.prefill(9, caller.request(9, LONG, 1, prefill_logprobs=True)).generations[0].prefill_tokens
    steps = [caller.prefill(0, caller.request(0, LONG, 3, chunk_len=8, prefill_logprobs=True))]
    while steps[-1].HasField("batch"):
        steps.append(caller.decode(0))
    assert [len(step.generations) for step in steps] == [0, 0, 1, 1, 1]
    generations = [g for step in steps for g in step.generations]
    assert [g.HasField("prefill_tokens") for g in generations] == [True, False, False]
    scored = generations[0].prefill_tokens
    assert list(scored.ids) == list(LONG.encode()) and list(scored.texts) == list(LONG)
    assert math.isnan(scored.logprobs[0]) and list(scored.is_special) == []
    assert list(scored.logprobs[1:]) == pytest.approx(list(whole.logprobs[1:]), abs=1e-5)


def test_c061_a_prefill_that_says_nothing_of_cache_or_chunks(shard, caller):
    assert ids_of(caller.answer(caller.request(1, LONG, 4))) == expected(LONG, 4)
    shard.assert_idle()


def test_several_prompts_are_computed_at_once_through_prefill_and_decode(shard, caller):
    texts = {i: f"{i}" * (10 + 3 * i) for i in range(4)}
    answers: dict[int, list] = {}
    step = caller.prefill(0, caller.request(0, texts[0], 5, chunk_len=3))
    for i in (1, 2, 3):
        answers = merged(answers, step)
        step = caller.prefill(i, caller.request(i, texts[i], 5, chunk_len=2), cached=0)
        assert batch_of(step)[0] == 0 and step.HasField("concat_ns")
    for request_id, generations in caller.run_out(step).items():
        answers.setdefault(request_id, []).extend(generations)
    assert {i: ids_of(g) for i, g in answers.items()} == {i: expected(t, 5) for i, t in texts.items()}
    shard.assert_idle()


def merged(answers: dict[int, list], step) -> dict[int, list]:
    for generation in step.generations:
        answers.setdefault(generation.request_id, []).append(generation)
    return answers


@pytest.mark.parametrize("leave", ["filter", "clear"])
def test_a_client_may_leave_in_mid_prompt(shard, caller, leave):
    # The slots are handed out again before the shard hears of it, as routers do (docs/protocol.md#batches).
    slots = range(30, 52)
    caller.prefill(0, caller.request(0, LONG, 3, chunk_len=8, slots=slots), caller.request(1, "mate", 9))
    caller.decode(0)
    if leave == "clear":
        caller.clear(0)
    else:
        caller.filter(0, [1])
    answer = caller.answer(caller.request(2, LONG[::-1], 3, slots=slots), batch_id=5)
    assert ids_of(answer) == expected(LONG[::-1], 3)
    if leave == "filter":
        assert len(caller.run_out(caller.decode(0))[1]) == 7
    shard.assert_idle()
