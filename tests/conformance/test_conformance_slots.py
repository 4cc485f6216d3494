"""The router's slots: what is written where, which prefixes are believed (docs/conformance.md#slots-and-prefixes)."""

import math
import random

import pytest

from conformance.caller import Caller, batch_of, ids_of, refused
from mocks.mock_model import MockModel, greedy_continuation

PROMPT = "a shared beginning, "


def expected(text: str, new: int) -> list[int]:
    return greedy_continuation(text.encode(), new, ignore_eos=True)


@pytest.fixture
def caller(shard) -> Caller:
    return shard.v3


def written_slots(shard) -> set[int]:
    """Slots whose content the last call changed from `MARK`."""
    keys = shard.engine.runner._states[0].keys(0)[:, 0, 0]
    return {slot for slot in range(len(keys)) if keys[slot] != MARK}


MARK = -7.0


def mark_all(shard) -> None:
    shard.engine.runner._states[0].keys(0).fill_(MARK)


def test_c053_position_p_is_written_to_the_p_th_slot_and_nowhere_else(shard, caller):
    mark_all(shard)
    text = "twenty prompt tokens"
    answer = caller.answer(caller.request(1, text, 10, blocks=[2, 3], slots=range(32, 61)))
    assert ids_of(answer) == expected(text, 10)
    assert written_slots(shard) == set(range(32, 61))


def test_c054_slots_in_any_order(caller):
    slots = [9, 3, 7, 100, 1, 50, 2, 77, 500]
    assert ids_of(caller.answer(caller.request(1, "abcde", 5, blocks=slots, slots=slots))) == expected("abcde", 5)


def test_c055_exactly_enough_slots(shard, caller):
    mark_all(shard)
    slots = range(511 - 8, 512)
    assert ids_of(caller.answer(caller.request(1, "abcd", 6, slots=slots))) == expected("abcd", 6)
    assert written_slots(shard) == set(slots)


def test_c056_no_slots_twice_with_the_same_ids(shard, caller):
    for _ in range(2):
        step = caller.prefill(0, *(caller.request(i, f"{i}", 4) for i in range(3)))
        assert {i: ids_of(g) for i, g in caller.run_out(step).items()} == {i: expected(f"{i}", 4) for i in range(3)}
    shard.assert_idle()


def test_c057_a_shared_prefix_is_not_computed_again(start):
    shard = start(run_ahead=False)
    caller = shard.v3
    caller.answer(caller.request(1, PROMPT, 1, slots=range(20)))
    before = shard.model.computed_tokens
    text, slots = PROMPT + "told again", [*range(20), *range(100, 112)]
    answer = caller.answer(caller.request(2, text, 3, slots=slots, cache_len=20))
    assert ids_of(answer) == expected(text, 3)
    assert shard.model.computed_tokens - before == len("told again") + 2


def test_c058_a_prefix_as_long_as_the_prompt_leaves_one_token(start):
    shard = start(run_ahead=False)
    caller = shard.v3
    caller.answer(caller.request(1, PROMPT, 1, slots=range(20)))
    before = shard.model.computed_tokens
    answer = caller.answer(caller.request(2, PROMPT, 3, slots=range(22), cache_len=20))
    assert ids_of(answer) == expected(PROMPT, 3)
    assert shard.model.computed_tokens - before == 3


@pytest.mark.parametrize("cached", [1, 19, 20])
def test_c059_a_prefix_that_is_not_there_is_computed(caller, cached):
    caller.answer(caller.request(1, "something different!", 1, slots=range(20)))
    answer = caller.answer(caller.request(2, PROMPT, 3, slots=range(22), cache_len=cached))
    assert ids_of(answer) == expected(PROMPT, 3)


def test_c060_slots_are_reused_before_the_filter(shard, caller):
    step = caller.prefill(0, caller.request(1, "short", 2, slots=range(6)), caller.request(2, "long", 9))
    step = caller.decode(0)
    assert [g.HasField("generated_text") for g in step.generations] == [True, False]
    again = caller.prefill(1, caller.request(3, "again", 5, slots=range(9)))
    caller.filter(0, [2])
    assert ids_of(caller.run_out(again)[3]) == expected("again", 5)
    assert len(caller.run_out(caller.decode(0))[2]) == 7
    shard.assert_idle()


def test_h1_a_prompt_that_was_put_back_was_never_computed(caller):
    """The router remembers a prompt that it put back, and sends it as cached (docs/protocol.md#prefixes)."""
    answer = caller.answer(caller.request(1, PROMPT, 4, slots=range(40, 63), cache_len=len(PROMPT) - 1))
    assert ids_of(answer) == expected(PROMPT, 4)


def test_h2_a_failed_prefill_leaves_no_prefix(start):
    caller = start(model=MockModel(fail_on=255)).v3
    with refused(says="the mock device failed"):
        caller.prefill(0, caller.request(1, PROMPT, 1, slots=range(20)), caller.request(2, "<fail>", 1, slots=[30]))
    caller.clear(0)
    answer = caller.answer(caller.request(3, PROMPT, 4, slots=range(23), cache_len=len(PROMPT) - 1))
    assert ids_of(answer) == expected(PROMPT, 4)


def test_h3_a_prompt_that_was_cut_is_not_the_prefix_of_what_its_router_thinks(caller):
    """The router keys the last n ids, the shard computed BOS and the last n-1 (docs/protocol.md#prefixes)."""
    text, keep = "x" + PROMPT, 12
    caller.answer(caller.request(1, text, 1, truncate=keep, add_special_tokens=True, slots=range(keep)))
    tail = text[-keep:]
    answer = caller.answer(caller.request(2, tail + "!", 3, slots=range(keep + 3), cache_len=keep))
    assert ids_of(answer) == expected(tail + "!", 3)


def test_a_name_that_means_the_model_shares_its_prefixes(caller):
    """What an adapter's are: `test_conformance_loading.py`."""
    caller.answer(caller.request(1, PROMPT, 1, slots=range(20), adapter_id="law"))
    answer = caller.answer(caller.request(2, PROMPT, 3, slots=range(22), cache_len=19, prefill_logprobs=True))
    scored = [g.prefill_tokens for g in answer if g.HasField("prefill_tokens")]
    assert ids_of(answer) == expected(PROMPT, 3)
    assert [logprob == logprob for logprob in scored[0].logprobs] == [False] * 20


def test_a_prefix_is_a_chain(caller):
    """The second slot holds the right token, computed behind another one."""
    caller.answer(caller.request(1, "ab", 1, slots=[1, 2]))
    caller.answer(caller.request(2, "cb", 1, slots=[3, 4]))
    request = caller.request(3, "ab!", 3, slots=[1, 4, 5, 6, 7], cache_len=2, prefill_logprobs=True)
    # Only what is computed has a log-probability after it: `!` has one because `b` was computed again.
    scored = caller.answer(request)[0].prefill_tokens.logprobs
    assert [math.isnan(logprob) for logprob in scored] == [True, True, False]


def test_too_few_slots_cut_the_prompt_as_its_router_must_have_counted_it(caller):
    answer = caller.answer(caller.request(1, "0123456789", 3, slots=range(8), cache_len=4))
    assert ids_of(answer) == expected("456789", 3)


def test_a_batch_counts_each_slot_once(shard, caller):
    caller.answer(caller.request(1, PROMPT, 1, slots=range(20)))
    shared = [
        caller.request(i, PROMPT + f"{i}", 4, slots=[*range(20), *range(30 * i, 30 * i + 4)], cache_len=20)
        for i in (2, 3, 4)
    ]
    step = caller.prefill(0, *shared)
    assert batch_of(step)[2] == 3
    assert step.batch.max_tokens == 20 + 3 * 4
    assert caller.filter(0, [3, 4]).max_tokens == 20 + 2 * 4
    step = caller.prefill(1, caller.request(5, "another", 3, slots=range(200, 209)), cached=0)
    assert step.batch.max_tokens == 20 + 2 * 4 + 9
    caller.prefill(2, caller.request(6, PROMPT, 9, slots=[*range(20), *range(300, 308)], cache_len=19))
    step = caller.decode(0, 2)
    assert step.batch.max_tokens == 20 + 2 * 4 + 9 + 8


@pytest.mark.parametrize(("attention", "tokens"), [("flashinfer", 5 + 4), ("paged", 16)])
def test_slots_that_the_shard_allocates_are_counted_in_whole_blocks(start, attention, tokens):
    # A version 2 router takes what max_tokens leaves of the cache for free (docs/protocol.md#batches).
    shard = start(attention=attention)
    free = shard.engine.pool.blocks.free_tokens
    step = shard.v2.prefill(0, shard.v2.request(1, "abcd", 5))
    assert step.batch.max_tokens == tokens == free - shard.engine.pool.blocks.free_tokens


def test_random_schedules_with_shared_prefixes_answer_as_if_alone(start):
    source = random.Random(4)
    shard = start()
    caller = shard.v3
    free, known = list(range(1, 400)), []
    for batch_id in range(40):
        prefix, held = source.choice(known) if known and source.random() < 0.6 else ("", [])
        text = prefix + "".join(source.choice("abcd") for _ in range(source.randint(1, 8)))
        need = len(text) + 3 - len(held)
        source.shuffle(free)
        slots, free = [*held, *free[:need]], free[need:]
        chunk = {"chunk_len": source.randint(1, len(text))} if source.random() < 0.4 else {}
        claimed = len(held) if source.random() < 0.8 else len(text)
        answer = caller.answer(caller.request(1, text, 4, slots=slots, cache_len=claimed, **chunk), batch_id)
        assert ids_of(answer) == expected(text, 4)
        kept = len(text) if len(known) < 5 else len(held)
        if kept > len(held):
            known.append((text, slots[:kept]))
        free += slots[kept:]
    shard.assert_idle()
