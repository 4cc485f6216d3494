"""The life of batches (docs/protocol.md#batches) on the mock model."""

import math
import re
from dataclasses import replace

import pytest

from mocks.byte_tokenizer import ByteTokenizer
from mocks.mock_model import EOS, UNSPOKEN, MockModel, greedy_continuation, next_logits
from text_generation_server.engine.types import (
    HEALTH_REQUEST_ID,
    Failure,
    FinishReason,
    PrefillCommand,
    Request,
    StepResult,
    StoppingParams,
    WarmupCommand,
)
from text_generation_server.errors import (
    GenerationError,
    InvalidRequest,
    NotEnoughMemory,
    OutOfBlocks,
    UnknownBatch,
)
from text_generation_server.sampling.params import SamplingParams


def request(request_id: int, prompt: str | bytes = "hello", new: int = 5, **changes: object) -> Request:
    ids = tuple(prompt.encode() if isinstance(prompt, str) else prompt)
    plain = Request(request_id, ids, SamplingParams(), StoppingParams(new, ignore_eos=True))
    return replace(plain, **changes)


def prefill(engine, batch_id: int, *requests: Request, cached: int | None = None) -> StepResult:
    return engine.prefill(PrefillCommand(batch_id, requests, cached))


def tokens_of(result: StepResult) -> dict[int, list[int]]:
    return {g.request_id: g.tokens.ids for g in result.generations}


def run_out(engine, result: StepResult) -> dict[int, list[int]]:
    """Decode until the batch is finished; all tokens by request."""
    answers: dict[int, list[int]] = {i: list(t) for i, t in tokens_of(result).items()}
    while result.batch:
        result = engine.decode([result.batch.id])
        for request_id, ids in tokens_of(result).items():
            answers.setdefault(request_id, []).extend(ids)
    return answers


@pytest.fixture(params=[True, False], ids=["run-ahead", "no-run-ahead"])
def engine(request, make_engine):
    return make_engine(run_ahead=request.param)


def test_a_batch_lives_until_its_length(engine):
    first = prefill(engine, 5, request(10, "ab", 3), request(11, "cd", 3))
    assert first.batch.id == 5 and first.batch.request_ids == (10, 11) and first.batch.current_tokens == 2
    assert all(g.finished is None and len(g.tokens.ids) == 1 for g in first.generations)
    engine.decode([5])
    last = engine.decode([5])
    assert [g.finished.finish_reason for g in last.generations] == [FinishReason.LENGTH] * 2
    assert [g.finished.generated_tokens for g in last.generations] == [3, 3]
    assert last.batch is None
    with pytest.raises(UnknownBatch, match="batch 5 is not cached"):
        engine.decode([5])


def test_tokens_follow_the_model(engine):
    answers = run_out(engine, prefill(engine, 0, request(0, "one", 6), request(1, "three", 9)))
    assert answers == {
        0: greedy_continuation(b"one", 6, ignore_eos=True),
        1: greedy_continuation(b"three", 9, ignore_eos=True),
    }


def test_one_token_needs_one_prefill(engine):
    result = prefill(engine, 0, request(0, new=1))
    assert result.generations[0].finished and result.batch is None


def test_end_of_sequence_ends_a_request_and_its_batch_mates_go_on(engine):
    prompt = next(p for p in (bytes([a, b]) for a in range(256) for b in range(256)) if _ends_within(p, 2, 6))
    other = request(1, "steady", 8)
    answers = run_out(engine, prefill(engine, 0, request(0, prompt, 20, stopping=StoppingParams(20)), other))
    assert answers[0] == greedy_continuation(prompt, 20) and answers[0][-1] == EOS
    assert answers[1] == greedy_continuation(b"steady", 8, ignore_eos=True)


def _ends_within(prompt: bytes, low: int, high: int) -> bool:
    answer = greedy_continuation(prompt, high)
    return low <= len(answer) < high and answer[-1] == EOS


def test_merged_batches_keep_order_and_the_first_id(engine):
    prefill(engine, 7, request(1, "a"), request(2, "b"))
    prefill(engine, 8, request(3, "c"))
    merged = engine.decode([8, 7])
    assert merged.batch.id == 8 and merged.batch.request_ids == (3, 1, 2) and merged.concat_ns is not None
    with pytest.raises(UnknownBatch):
        engine.decode([7])


@pytest.mark.parametrize(
    ("ids", "error"), [([], InvalidRequest), ([99], UnknownBatch), ([1, 99], UnknownBatch), ([1, 1], InvalidRequest)]
)
def test_a_bad_decode_is_refused_and_costs_nothing(engine, ids, error):
    prefill(engine, 1, request(0))
    with pytest.raises(error):
        engine.decode(ids)
    assert engine.decode([1]).generations


def test_filter_keeps_the_given_order(engine):
    start = prefill(engine, 0, request(1, "a"), request(2, "b"), request(3, "c"))
    view = engine.filter(0, [3, 1])
    assert view.request_ids == (3, 1)
    assert set(tokens_of(engine.decode([0]))) == {1, 3}
    assert start.batch.max_tokens > view.max_tokens


def test_a_batch_counts_a_slot_that_two_share_once(engine):
    prompt = "shared prefix!"
    first = prefill(engine, 0, request(1, prompt, slots=tuple(range(18))))
    second = request(2, prompt, slots=(*range(8), *range(40, 50)), cache_len=8)
    both = prefill(engine, 1, second, cached=0)
    assert (first.batch.max_tokens, both.batch.max_tokens) == (18, 28)
    assert engine.filter(0, [2]).max_tokens == 18


def test_filter_errors_keep_the_batch(engine):
    prefill(engine, 0, request(1))
    with pytest.raises(UnknownBatch):
        engine.filter(4, [1])
    with pytest.raises(InvalidRequest, match="ClearCache"):
        engine.filter(0, [])
    assert engine.filter(0, [1, 77]).request_ids == (1,)


def test_clear_gives_everything_back(engine):
    for _ in range(500):
        prefill(engine, 3, request(1, "abc", 40), request(2, "abc", 40))
        engine.clear(3)
    engine.clear(12345)
    prefill(engine, 4, request(1))
    engine.clear(None)
    assert len(engine.pool.rows) == 16 and engine.pool.blocks.free_tokens == 512


def test_a_known_batch_id_is_replaced(engine):
    prefill(engine, 0, request(1, "old", 50))
    assert run_out(engine, prefill(engine, 0, request(2, "new", 4))) == {2: greedy_continuation(b"new", 4, True)}
    assert len(engine.pool.rows) == 16


def test_requests_may_share_an_id(engine):
    result = prefill(engine, 0, request(0, "x", 3), request(0, "y", 3))
    assert len(result.generations) == 2 and result.batch.request_ids == (0, 0)


@pytest.mark.parametrize("run_ahead", [True, False])
def test_chunked_prefill_follows_the_worked_example(make_engine, run_ahead):
    engine = make_engine(max_prefill_tokens=8, run_ahead=run_ahead)
    r0 = request(0, bytes(range(20)), 4, chunk=8)
    r1 = request(1, bytes(range(30, 36)), 4, chunk=4)
    step = prefill(engine, 0, r0)
    assert step.generations == () and step.batch.current_tokens == 8 and step.batch.request_ids == (0,)
    step = engine.decode([0])
    assert step.generations == () and step.batch.current_tokens == 4
    step = prefill(engine, 1, r1, cached=0)
    assert set(tokens_of(step)) == {0} and step.batch.id == 0 and step.batch.request_ids == (0, 1)
    assert step.batch.current_tokens == (5 if run_ahead else 3) and step.concat_ns is not None
    first = tokens_of(step)[0]
    step = engine.decode([0])
    assert set(tokens_of(step)) == ({0} if run_ahead else {0, 1})
    assert step.batch.current_tokens == (3 if run_ahead else 2)
    rest = run_out(engine, step)
    assert first + rest[0] == greedy_continuation(range(20), 4, True)
    assert rest[1] == greedy_continuation(range(30, 36), 4, True)


def test_prompts_join_the_step_that_is_launched_next(make_engine):
    """Not one of their own, which would read all weights once more and keep everybody waiting."""
    model = MockModel()
    engine = make_engine(model=model)
    prefill(engine, 0, request(0, "mate", 9))
    assert set(tokens_of(prefill(engine, 1, request(1, "prompt", 3), cached=0))) == {0}
    assert set(tokens_of(engine.decode([0]))) == {0, 1}
    assert model.sizes[:3] == [len("mate"), 1, 1 + len("prompt")]


@pytest.mark.parametrize("run_ahead", [True, False])
def test_steps_with_prompts_beside_answers_are_bounded(make_engine, run_ahead):
    """By `max_mixed_tokens`, whatever a router asks for; who came first is served first; the room left is told."""
    model = MockModel()
    engine = make_engine(model=model, run_ahead=run_ahead, max_mixed_tokens=8)
    assert prefill(engine, 0, request(0, "mate", 40)).batch.prefill_room == 7
    step = prefill(engine, 1, request(1, "x" * 12, 3, chunk=7), request(2, "y" * 9, 3, chunk=1), cached=0)
    assert step.batch.prefill_room == 0
    model.sizes.clear()
    order = []
    while step.batch.request_ids != (0,):
        step = engine.decode([0])
        order += [name for name in tokens_of(step) if name and name not in order]
    assert max(model.sizes) == 8 and order == [1, 2]
    assert step.batch.prefill_room == 7


def test_every_prefilling_row_advances_when_the_budget_is_spent(make_engine):
    engine = make_engine(max_prefill_tokens=2)
    prompts = [bytes([i] * 9) for i in range(3)]
    result = prefill(engine, 0, *(request(i, p, 2, chunk=1) for i, p in enumerate(prompts)))
    steps = 1
    while not result.generations:
        assert result.batch.current_tokens >= 3
        result = engine.decode([0])
        steps += 1
    assert steps <= 9
    assert run_out(engine, result) == {i: greedy_continuation(p, 2, True) for i, p in enumerate(prompts)}


def test_router_slots_are_the_only_truth(engine):
    slots = (9, 3, 7, 100, 1, 50, 2, 77)
    answers = run_out(engine, prefill(engine, 0, request(0, "abcd", 5, slots=slots)))
    assert answers[0] == greedy_continuation(b"abcd", 5, True)
    assert engine.pool.blocks.free_tokens == 512


def test_a_true_cached_prefix_is_not_computed_again(make_engine):
    model = MockModel()
    engine = make_engine(model=model, run_ahead=False)
    prefill(engine, 0, request(0, "shared prefix!", 1, slots=tuple(range(14))))
    before = model.computed_tokens
    slots = (*range(10), *range(40, 48))
    answers = run_out(engine, prefill(engine, 1, request(1, "shared preXYZ", 3, slots=slots, cache_len=10)))
    assert answers[1] == greedy_continuation(b"shared preXYZ", 3, True)
    assert model.computed_tokens - before == 3 + 2


@pytest.mark.parametrize("cached", [4, 5])
def test_a_false_cached_prefix_is_computed(engine, cached):
    prefill(engine, 0, request(0, "other", 1, slots=tuple(range(5))))
    answers = run_out(engine, prefill(engine, 1, request(1, "hello", 3, slots=tuple(range(7)), cache_len=cached)))
    assert answers[1] == greedy_continuation(b"hello", 3, True)


def test_a_whole_cached_prompt_computes_its_last_token(engine):
    for batch_id in (0, 1):
        answers = run_out(engine, prefill(engine, batch_id, request(0, "hello", 3, slots=tuple(range(7)), cache_len=5)))
        assert answers[0] == greedy_continuation(b"hello", 3, True)


def test_slots_written_by_decoding_are_not_a_prefix(engine):
    answer = greedy_continuation(b"hello", 4, True)
    run_out(engine, prefill(engine, 0, request(0, "hello", 4, slots=tuple(range(8)))))
    # Reuse with a prompt that claims the decoded positions too, with another token in one of them.
    prompt = (*b"hello", answer[0], (answer[1] + 1) % 256, 5, 6)
    answers = run_out(
        engine, prefill(engine, 1, request(1, "", 3, prompt_ids=prompt, slots=tuple(range(11)), cache_len=8))
    )
    assert answers[1] == greedy_continuation(prompt, 3, True)


def test_a_prefix_overwritten_by_decoding_is_computed_again(engine):
    prefill(engine, 0, request(0, "hello", 1, slots=tuple(range(5))))
    run_out(engine, prefill(engine, 1, request(1, "ab", 4, slots=(50, 51, 2, 3, 4))))
    answers = run_out(engine, prefill(engine, 2, request(2, "hello", 3, slots=tuple(range(7)), cache_len=4)))
    assert answers[2] == greedy_continuation(b"hello", 3, True)


def test_a_prefix_of_a_failed_step_is_computed_again(make_engine):
    engine = make_engine(model=MockModel(fail_on=UNSPOKEN))
    with pytest.raises(GenerationError):
        poisoned = request(1, bytes([UNSPOKEN]), 1, slots=(20,))
        prefill(engine, 0, request(0, "hello", 3, slots=tuple(range(7))), poisoned)
    answers = run_out(engine, prefill(engine, 1, request(2, "hello", 3, slots=tuple(range(7)), cache_len=4)))
    assert answers[2] == greedy_continuation(b"hello", 3, True)


class Hungry(MockModel):
    """Has not enough memory for steps of many tokens."""

    def hidden(self, step):
        if len(step.token_ids) > 20:
            raise MemoryError("no room")
        return super().hidden(step)


def test_a_step_without_enough_memory_is_an_error(make_engine):
    """The slots that its prompt had are not taken for computed."""
    engine = make_engine(model=Hungry())
    slots = tuple(range(40))
    with pytest.raises(GenerationError, match="not enough memory for a step of 30 tokens: no room"):
        prefill(engine, 0, request(0, "x" * 30, 3, slots=slots))
    again = run_out(engine, prefill(engine, 2, request(2, "x" * 10, 3, slots=slots, cache_len=9)))
    assert again[2] == greedy_continuation(b"x" * 10, 3, True)
    assert len(engine.pool.rows) == engine.settings.max_rows
    assert run_out(engine, prefill(engine, 1, request(1, "hello", 3)))[1] == greedy_continuation(b"hello", 3, True)


def test_too_few_slots_cut_the_prompt_on_the_left(engine):
    answers = run_out(engine, prefill(engine, 0, request(0, "0123456789", 3, slots=tuple(range(8)))))
    assert answers[0] == greedy_continuation(b"456789", 3, True)


def test_a_liveness_prefill_touches_no_router_slot(engine):
    live = prefill(engine, 0, request(1, "live", 6, slots=tuple(range(9))))
    health = request(HEALTH_REQUEST_ID, "liveness", 1, slots=tuple(range(16)))
    probe = prefill(engine, HEALTH_REQUEST_ID, health)
    assert probe.generations[0].finished and probe.batch is None
    assert run_out(engine, live)[1] == greedy_continuation(b"live", 6, True)


def test_a_liveness_prefill_works_when_everything_is_taken(make_engine):
    engine = make_engine(max_rows=1, num_slots=8)
    prefill(engine, 0, request(1, "full", 5))
    with pytest.raises(OutOfBlocks, match="rows are in use"):
        prefill(engine, 1, request(2, "x", 1, slots=(0,)))
    assert prefill(engine, HEALTH_REQUEST_ID, request(HEALTH_REQUEST_ID, "liveness", 1, slots=(0,))).generations


def test_what_does_not_fit_is_refused_and_nothing_leaks(make_engine):
    engine = make_engine(num_slots=16)
    live = prefill(engine, 0, request(1, "abc", 6))
    with pytest.raises(OutOfBlocks, match="needs 10 tokens of cache, 4 of 16 are free"):
        prefill(engine, 1, request(2, "a", 2), request(3, "x" * 8, 3))
    assert engine.pool.blocks.free_tokens == 8 and len(engine.pool.rows) == 15
    assert run_out(engine, live)[1] == greedy_continuation(b"abc", 6, True)


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ({"prompt_ids": ()}, "no tokens"),
        ({"prompt_ids": (1, 999)}, "token id 999"),
        ({"stopping": StoppingParams(0)}, "max_new_tokens is 0"),
        ({"stopping": StoppingParams(300)}, "exceed the 256 tokens"),
        ({"slots": (1, 2, 3, 4, 5, 6, 7, 8, 5000)}, "slot 5000"),
        ({"slots": (1, 2)}, "2 slots cannot hold"),
    ],
)
def test_a_bad_request_is_refused_by_name_and_ends_alone(engine, bad, text):
    with pytest.raises(InvalidRequest, match=text):
        prefill(engine, 0, request(1, "bad", **bad))
    assert len(engine.pool.rows) == 16 and engine.pool.blocks.free_tokens == 512 and engine.batch_ids == ()
    step = prefill(engine, 0, request(0, "good"), request(1, "bad", **bad))
    ended = step.generations[1]
    assert ended.request_id == 1 and isinstance(ended.finished, Failure)
    assert re.search(text, ended.finished.reason)
    assert tokens_of(step)[0] + run_out(engine, engine.decode([0]))[0] == greedy_continuation(b"good", 5, True)
    assert len(engine.pool.rows) == 16 and engine.pool.blocks.free_tokens == 512


def test_a_bad_request_leaves_the_batch_it_joins_alone(engine):
    first = tokens_of(prefill(engine, 0, request(0, "alive", 4)))[0]
    step = prefill(engine, 1, request(1, ""), cached=0)
    assert step.batch.request_ids == (0,) and set(tokens_of(step)) == {0, 1}
    assert first + run_out(engine, step)[0] == greedy_continuation(b"alive", 4, True)


def test_a_failed_join_loses_the_cached_batch_too(make_engine):
    engine = make_engine(max_rows=1)
    prefill(engine, 0, request(0))
    with pytest.raises(OutOfBlocks):
        prefill(engine, 1, request(1), cached=0)
    assert engine.batch_ids == () and len(engine.pool.rows) == 1


def test_a_failed_step_answers_and_the_engine_goes_on(make_engine):
    engine = make_engine(model=MockModel(fail_on=UNSPOKEN))
    live = prefill(engine, 0, request(0, "alive", 4))
    with pytest.raises(GenerationError, match="the mock device failed"):
        prefill(engine, 1, request(1, bytes([1, UNSPOKEN])))
    assert 1 not in engine.batch_ids
    run_out(engine, live)
    assert len(engine.pool.rows) == 16 and engine.pool.blocks.free_tokens == 512


def test_prompt_logprobs_arrive_once_over_chunks(make_engine):
    engine = make_engine(max_prefill_tokens=4)
    prompt = b"score this prompt"
    result = prefill(engine, 0, request(0, prompt, 3, prefill_logprobs=True, chunk=5))
    while not result.generations:
        result = engine.decode([0])
    scored = result.generations[0].prefill_tokens
    assert scored.ids == list(prompt) and math.isnan(scored.logprobs[0]) and scored.is_special == []
    for position in range(1, len(prompt)):
        logits = next_logits(prompt[:position])
        norm = math.log(sum(math.exp(x) for x in logits))
        assert scored.logprobs[position] == pytest.approx(logits[prompt[position]] - norm, abs=1e-4)
    assert engine.decode([0]).generations[0].prefill_tokens is None


def test_alternatives_to_a_prompts_tokens_come_with_its_scores(make_engine):
    engine = make_engine(max_prefill_tokens=9)
    prompts = [b"score this prompt", b"and this", b"not this"]
    wanted = [*({"prefill_logprobs": True, "prefill_top_n": n} for n in (3, 0)), {}]
    asked = [request(n, prompts[n], 3, **wanted[n]) for n in range(3)]
    result = prefill(engine, 0, *asked)
    found = {}
    while result.batch:
        for generation in result.generations:
            found.setdefault(generation.request_id, generation)
        result = engine.decode([0])
    assert [found[n].prefill_top_tokens for n in (1, 2)] == [(), ()]
    tops = found[0].prefill_top_tokens
    assert len(tops) == len(prompts[0]) and tops[0].ids == []
    for position in range(1, len(tops)):
        logits = next_logits(prompts[0][:position])
        norm = math.log(sum(math.exp(x) for x in logits))
        best = sorted(logits, reverse=True)[:3]
        assert [logits[token] for token in tops[position].ids] == pytest.approx(best)
        assert tops[position].logprobs == pytest.approx([score - norm for score in best], abs=1e-4)
        assert tops[position].texts == [ByteTokenizer().token_text(token) for token in tops[position].ids]


def test_top_tokens_come_for_those_who_asked(engine):
    result = prefill(engine, 0, request(0, "a", top_n_tokens=3), request(1, "b"))
    by_id = {g.request_id: g for g in result.generations}
    assert len(by_id[0].top_tokens) == 1 and by_id[0].top_tokens[0].ids[0] == by_id[0].tokens.ids[0]
    assert by_id[1].top_tokens == ()


def test_a_seed_gives_the_same_tokens_alone_and_in_company(engine):
    sampled = SamplingParams(temperature=0.7, seed=42)
    alone = run_out(engine, prefill(engine, 0, request(0, "seeded", 12, sampling=sampled)))[0]
    prefill(
        engine, 1, *(request(i, f"mate{i}", 9, sampling=SamplingParams(do_sample=True, seed=i)) for i in range(1, 6))
    )
    joined = prefill(engine, 2, request(0, "seeded", 12, sampling=sampled), cached=1)
    assert run_out(engine, joined)[0] == alone


def test_penalties_do_not_depend_on_batch_mates(engine):
    penalised = SamplingParams(repetition_penalty=1.3, frequency_penalty=1.0)
    prompt = bytes(range(0, 200))
    alone = run_out(engine, prefill(engine, 0, request(0, prompt, 10, sampling=penalised)))[0]
    assert alone != greedy_continuation(prompt, 10, True)
    mates = [request(i, "another prompt", 4, sampling=penalised) for i in range(1, 4)]
    assert run_out(engine, prefill(engine, 1, *mates, request(0, prompt, 10, sampling=penalised)))[0] == alone


def test_warmup_sizes_the_cache(make_engine):
    engine = make_engine()
    prefill(engine, 9, request(0))
    warm = request(0, b"x" * 50, 2**32 - 50, sampling=SamplingParams(watermark=True, temperature=0.9, top_k=10))
    result = engine.warmup(
        WarmupCommand((warm, warm), max_prefill_tokens=100, max_input_tokens=50, max_total_tokens=64)
    )
    assert (result.max_input_tokens, result.max_total_tokens) == (50, 64)
    assert result.supported_tokens >= 100 and engine.batch_ids == ()
    assert len(run_out(engine, prefill(engine, 0, request(0, b"y" * 40, 24)))[0]) == 24


def test_warmup_says_what_fits(make_engine):
    engine = make_engine()
    with pytest.raises(NotEnoughMemory, match=r"the cache fits \d+ tokens"):
        engine.warmup(WarmupCommand((request(0),), max_prefill_tokens=2**45))


def test_a_router_that_never_warms_up_is_served(make_engine):
    engine = make_engine()
    engine._pool = None
    assert run_out(engine, prefill(engine, 0, request(0, "cold", 3)))[0] == greedy_continuation(b"cold", 3, True)
