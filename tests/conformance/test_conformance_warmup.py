"""What Warmup returns, and which routers want special tokens (docs/conformance.md#warm-up)."""

import base64

import pytest

from conformance.caller import ids_of
from conformance.recitals import always
from mocks.mock_model import MockModel, greedy_continuation

BOS = b"\xfe"
JPEG_THAT_IS_A_PNG = b"\x89PNG\r\n\x1a\n" + bytes(543)


def warm(caller, truncate: int, new: int, words: int, **changes):
    """One request of a router's warm-up batch (docs/protocol.md#warming-up)."""
    parameters = {
        "temperature": 0.9, "top_k": 10, "top_p": 0.9, "typical_p": 0.9, "repetition_penalty": 1.2,
        "frequency_penalty": 0.1, "watermark": True,
    }  # fmt: skip
    return caller.request(
        0, "_test " * words, new, parameters=parameters, truncate=truncate, prefill_logprobs=True, top_n_tokens=20,
        **changes,
    )  # fmt: skip


def tokens_computed(shard, warm_up) -> int:
    before = shard.model.computed_tokens
    warm_up()
    return shard.model.computed_tokens - before


def test_c009_given_limits_are_returned_exactly(start):
    shard = start(model=MockModel(logits=always({7: 1.0})))
    caller = shard.v3
    requests = [warm(caller, 1024, 1024, 1024, add_special_tokens=True) for _ in range(4)]
    limits = {"max_input_tokens": 1024, "max_total_tokens": 2048}
    answer = caller.warmup(*requests, prefill=4096, **limits)
    assert answer.HasField("max_supported_total_tokens")
    assert answer.max_supported_total_tokens >= 4096
    assert (answer.max_input_tokens, answer.max_total_tokens) == (1024, 2048)
    assert shard.model.computed_tokens >= 4096
    shard.assert_idle()


def test_c010_limits_that_are_left_open_are_what_fits(start):
    shard = start(model=MockModel(logits=always({7: 1.0})))
    answer = shard.v3.warmup(warm(shard.v3, 4096, 1, 4096, add_special_tokens=True), prefill=4096)
    assert answer.max_total_tokens == 4096 and answer.max_input_tokens == 4095
    assert answer.max_supported_total_tokens >= 4096


@pytest.mark.parametrize("new", [2**32 - 2048, 2**32 - 1, 2**31])
def test_c011_a_length_that_wrapped_around_does_no_harm(start, new):
    shard = start()
    computed = tokens_computed(
        shard, lambda: shard.v3.warmup(warm(shard.v3, 100, new, 100), prefill=200, max_total_tokens=64)
    )
    assert 100 <= computed < 200
    shard.assert_idle()


def test_c012_an_image_is_not_for_a_text_model(start):
    shard = start()
    caller, pb = shard.v3, shard.v3.pb
    image = pb.InputChunk(image=pb.Image(data=JPEG_THAT_IS_A_PNG, mimetype="image/jpeg;base64"))
    chunks = pb.Input(chunks=[pb.InputChunk(text="_test " * 10), image])
    request = warm(caller, 200, 5, 0, input_chunks=chunks, add_special_tokens=True)
    assert tokens_computed(shard, lambda: caller.warmup(request, prefill=200)) == 1 + 60 + 1
    shard.assert_idle()


def test_c013_version_2_sends_the_image_as_text(start):
    shard = start()
    caller = shard.v2
    request = warm(caller, 50, 64 - 50, 50)
    request.inputs += f"![](data:image/jpeg;base64,{base64.b64encode(JPEG_THAT_IS_A_PNG).decode()})"
    answer = caller.warmup(request, prefill=100, max_input_length=50, max_total_tokens=64)
    assert answer.HasField("max_supported_total_tokens") and answer.max_supported_total_tokens >= 100
    shard.assert_idle()


def test_a_router_that_never_warms_up_is_served(start):
    shard = start(warm=False)
    caller = shard.v3
    step = caller.prefill(0, caller.request(1, "cold", 3), caller.request(2, "start", 3))
    assert ids_of(caller.run_out(step)[1]) == greedy_continuation(b"cold", 3, ignore_eos=True)
    assert shard.engine.max_prefill_tokens == 4096


def first_tokens(start, says_so: bool) -> list[int]:
    """What follows `hello`, sent without the flag, after a warm-up with or without it."""
    caller = start().v3
    caller.clear()
    caller.warmup(warm(caller, 64, 2, 20, add_special_tokens=says_so), prefill=64)
    return ids_of(caller.answer(caller.request(1, "hello", 4, add_special_tokens=False)))


def test_c020_who_never_asks_for_special_tokens_gets_them(start):
    assert first_tokens(start, says_so=False) == greedy_continuation(BOS + b"hello", 4, ignore_eos=True)


def test_c021_who_can_ask_for_special_tokens_gets_what_is_asked_for(start):
    assert first_tokens(start, says_so=True) == greedy_continuation(b"hello", 4, ignore_eos=True)
