"""Guesses: several ids a Generation, the same text, what Info says (docs/conformance.md#guesses)."""

import pytest

from conformance.caller import STOP_SEQUENCE, ids_of, texts_of
from conformance.recitals import recite
from mocks.mock_model import MockModel

GUESSES = 3
POEM = "abcabcabcabcabcabcabc"


@pytest.fixture
def caller(start):
    return start(model=MockModel(logits=recite), speculate=GUESSES).v3


def test_c099_guesses_change_the_number_of_steps_only(caller, start):
    plain = start(model=MockModel(logits=recite)).v3
    request = caller.request(1, POEM + "\x02", 24, top_n_tokens=2)
    answer = caller.answer(request)
    assert ids_of(answer) == ids_of(plain.answer(request))
    assert max(len(g.tokens.ids) for g in answer) in (2, 3, GUESSES + 1)
    for generation in answer:
        tokens = generation.tokens
        lists = (tokens.ids, tokens.logprobs, tokens.texts, tokens.is_special, generation.top_tokens)
        assert len({len(values) for values in lists}) == 1
    assert answer[-1].generated_text.generated_tokens == 24


@pytest.mark.parametrize("stop", ["cabca", "bcabcab"])
def test_c100_nothing_follows_the_end(caller, stop):
    answer = caller.answer(caller.request(1, POEM + "\x02", 40, stops=[stop]))
    end = answer[-1].generated_text
    assert end.finish_reason == STOP_SEQUENCE and end.text.endswith(stop)
    assert end.generated_tokens == len(ids_of(answer)) == len(end.text) and "".join(texts_of(answer)) == end.text


@pytest.mark.parametrize("tokens", [5, 6, 7, 8])
def test_c100_length_counts_guesses(caller, tokens):
    answer = caller.answer(caller.request(1, POEM + "\x02", tokens))
    assert len(ids_of(answer)) == answer[-1].generated_text.generated_tokens == tokens


def test_c101_slots_of_guesses_may_be_used(caller, start):
    prompt, new = POEM + "\x02", 12
    slots = range(100, 100 + len(prompt) + new - 1 + GUESSES)
    answer = caller.answer(caller.request(1, prompt, new, slots=slots))
    assert ids_of(answer) == list(POEM[:new].encode())
    info = caller.stub.Info(caller.pb.InfoRequest())
    assert (info.speculate, info.support_chunking) == (GUESSES, False)
