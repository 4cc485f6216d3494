"""What random input has found, one case each."""

import math

import pytest

from conformance.caller import ids_of, logprobs_of
from fuzz.faulty_model import FaultyModel
from fuzz.standing import assert_standing, call, continuation


@pytest.mark.parametrize("changes", [{"repetition_penalty": 1e-45}, {"frequency_penalty": 3e38, "temperature": 1e-45}])
def test_the_strongest_penalties_leave_numbers(start, changes):
    caller = start().v3
    answer = caller.answer(caller.request(1, "hello hello", 4, parameters=changes))
    assert len(ids_of(answer)) == 4 and all(map(math.isfinite, logprobs_of(answer)))


def test_nobody_takes_over_a_prefix_whose_step_fails_later(start):
    model = FaultyModel()
    caller = start(model=model, max_prefill_tokens=4).v3
    model.fail_after(1)
    caller.prefill(0, caller.request(1, "abcdefghijkl", 3, slots=range(14), chunk_len=4))
    claiming = caller.request(2, "abcdefgh!", 3, slots=[*range(8), *range(20, 23)], cache_len=8)
    answer = caller.run_out(caller.prefill(1, claiming))[2]
    assert ids_of(answer) == continuation("v3", "abcdefgh!", 3)


@pytest.mark.parametrize(
    "limits", [{"max_total_tokens": 9000}, {"max_prefill_tokens": 2**32 - 1}, {"max_total_tokens": 2**31}]
)
def test_after_a_failed_warm_up_requests_of_usual_lengths_are_served(start, limits):
    shard = start()
    batch = {"requests": [{"inputs": "a", "stopping_parameters": {"max_new_tokens": 1}}]}
    assert call(shard.v3, "Warmup", {"batch": batch, "max_prefill_tokens": 64} | limits) is None
    assert_standing(shard)


MANY = 10**6
STARTED = {"inputs": "hello", "stopping_parameters": {"max_new_tokens": 3}}
LARGE = {
    "stop sequences": {"stopping_parameters": {"max_new_tokens": 3, "stop_sequences": ["no"] * MANY}},
    "a stop sequence": {"stopping_parameters": {"max_new_tokens": 3, "stop_sequences": ["n" * MANY]}},
    "slots": {"slots": [2**32 - 1] * MANY},
    "one slot": {"slots": [0] * MANY},
    "blocks": {"blocks": [2**32 - 1] * MANY},
    "text": {"inputs": "n" * MANY},
    "truncated text": {"inputs": "n" * MANY, "truncate": 8},
    "images": {"input_chunks": {"chunks": [{"image": {"data": b"n"}}] * (MANY // 10)}},
    "chunks": {"input_chunks": {"chunks": [{"text": "h"}] * (MANY // 10)}, "truncate": 8},
    "adapter": {"adapter_id": "n" * MANY},
    "regular expression": {"parameters": {"grammar": "(" * MANY, "grammar_type": 2}},
    "schema": {"parameters": {"grammar": "[" * MANY, "grammar_type": 1}},
}


@pytest.mark.parametrize("name", LARGE)
def test_a_request_with_a_million_of_something_is_one_request(start, name):
    shard = start()
    requests = [{"id": 1} | STARTED | LARGE[name], {"id": 2} | STARTED]
    answer = call(shard.v3, "Prefill", {"batch": {"requests": requests}})
    assert [list(g.tokens.ids) for g in answer.generations if g.request_id == 2] == [continuation("v3", "hello", 3)[:1]]
    assert_standing(shard)


@pytest.mark.parametrize(
    ("method", "values"),
    [
        ("Decode", {"batches": [{"id": i} for i in range(MANY // 10)]}),
        ("Decode", {"batches": [{"id": 0}] * (MANY // 10)}),
        ("FilterBatch", {"batch_id": 0, "request_ids": range(1, MANY)}),
        ("Prefill", {"batch": {"requests": [STARTED] * (MANY // 100)}}),
        ("Prefill", {"batch": {"requests": [{}] * (MANY // 100)}}),
        ("Prefill", {"batch": {"requests": [{"id": 2**64 - 1} | STARTED] * 300}}),
        ("Warmup", {"batch": {"requests": [STARTED] * 1000}, "max_prefill_tokens": 64}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_call_that_names_a_million_things_is_one_call(start, method, values):
    shard = start()
    shard.v3.prefill(0, shard.v3.request(0, "hello", 5))
    answer = call(shard.v3, method, values)
    assert_standing(shard, warmed=method == "Warmup" and answer is not None)


@pytest.mark.parametrize(
    "changes",
    [{"generated_ids": [257]}, {"prompt_ids": [9**9]}, {"parameters": {"logit_bias": [{"id": 257, "bias": 1.0}]}}],
    ids=["generated", "prompt", "bias"],
)
def test_tokens_that_the_model_does_not_have_are_refused_of_liveness_requests_too(start, changes):
    shard = start()
    batch = {"requests": [{**STARTED, "id": 2**64 - 1, "prefill_logprobs": True, **changes}]}
    assert call(shard.v3, "Prefill", {"batch": batch}) is None
    assert_standing(shard)
