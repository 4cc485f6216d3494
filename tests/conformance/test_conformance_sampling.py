"""Greedy or drawn, penalties, warpers, watermark (docs/conformance.md#choosing-tokens)."""

import math

import pytest

from conformance.caller import ids_of, logprobs_of
from conformance.recitals import always, logits_of
from mocks.mock_model import VOCAB_SIZE, MockModel, greedy_continuation

A, B, C, D = b"ABCD"
DRAWN = {"temperature": 0.7, "seed": 42}


def probabilities(scores: list[float]) -> list[float]:
    norm = sum(math.exp(score) for score in scores)
    return [math.exp(score) / norm for score in scores]


def scored(start, scores: dict[int, float], **options):
    """A caller whose model has these scores after every token."""
    return start(model=MockModel(logits=always(scores)), **options).v3


def test_c087_a_temperature_of_1_draws_nothing(start):
    caller = start().v3
    answer = caller.answer(caller.request(1, "hello", 6, parameters={"temperature": 1.0, "seed": 5}))
    assert ids_of(answer) == greedy_continuation(b"hello", 6, ignore_eos=True)
    assert not answer[-1].generated_text.HasField("seed")


def test_c088_a_seed_gives_the_same_tokens_whoever_else_is_there(shard):
    caller = shard.v3
    alone = ids_of(caller.answer(caller.request(1, "seeded", 8, parameters=DRAWN)))
    assert alone == ids_of(caller.answer(caller.request(1, "seeded", 8, parameters=DRAWN)))
    assert alone != greedy_continuation(b"seeded", 8, ignore_eos=True)
    mates = [caller.request(i, f"mate {i}", 3 + i, parameters=DRAWN | {"seed": i}) for i in range(2, 9)]
    mine = caller.request(1, "seeded", 8, parameters=DRAWN)
    together = caller.run_out(caller.prefill(0, *mates[:3], mine, *mates[3:]))
    assert ids_of(together[1]) == alone
    first = caller.prefill(1, mine)
    caller.prefill(2, mates[4], mates[5])
    joined = caller.run_out(caller.decode(2, 1))
    assert ids_of([*first.generations, *joined[1]]) == alone


def test_c089_repetition_counts_each_token_of_prompt_and_answer_once(start):
    scores = {A: 3.0, B: 2.9, C: -1.0}
    caller = scored(start, scores)
    penalised = caller.request(1, "AACC", 4, parameters={"repetition_penalty": 1.3}, top_n_tokens=3)
    answer = caller.answer(penalised)
    assert ids_of(answer) == [B, A, A, A]
    expected = probabilities(logits_of({A: 3.0 / 1.3, B: 2.9, C: -1.3}))
    top = dict(zip(answer[0].top_tokens[0].ids, answer[0].top_tokens[0].logprobs, strict=True))
    assert {t: top[t] for t in (A, B, C)} == pytest.approx({t: math.log(expected[t]) for t in (A, B, C)}, abs=1e-5)
    mate = caller.request(2, "BBBBBBBBBBBB", 4, parameters={"repetition_penalty": 1.9})
    assert caller.run_out(caller.prefill(0, mate, penalised))[1] == answer


def test_c090_frequency_does_not_see_batch_mates(start):
    scores = {A: 3.0, B: 2.9, C: 2.8}
    caller = scored(start, scores)
    penalised = caller.request(1, "AAAB", 6, parameters={"frequency_penalty": 1.0})
    alone = caller.answer(penalised)
    expected = probabilities(logits_of({A: 3.0 - 3 / 4, B: 2.9 - 1 / 4, C: 2.8}))
    assert ids_of(alone)[0] == C and logprobs_of(alone)[0] == pytest.approx(math.log(expected[C]), abs=1e-5)
    longer = caller.request(2, "\x00" * 60, 6, parameters={"frequency_penalty": 0.5})
    company = caller.run_out(caller.prefill(0, longer, penalised))[1]
    assert ids_of(company) == ids_of(alone) and logprobs_of(company) == pytest.approx(logprobs_of(alone), abs=1e-6)


def test_c091_a_tiny_top_p_leaves_the_best(start):
    caller = scored(start, {A: 3.0, B: 2.99})
    answer = caller.answer(caller.request(1, "hi", 5, parameters={"top_p": 1e-6, "seed": 9}))
    assert ids_of(answer) == [A] * 5 and logprobs_of(answer) == pytest.approx([0.0] * 5, abs=1e-6)


@pytest.mark.parametrize(("mass", "kept"), [(0.25, [B]), (0.49, [B, C]), (0.85, [A, B, C]), (0.95, [A, B, C, D])])
def test_c092_typical_tokens_are_those_whose_surprise_is_near_the_entropy(start, mass, kept):
    # Of 0.4, 0.3, 0.2, 0.1 with an entropy of 1.28: B is nearest, then C, then A, then D.
    caller = scored(start, {A: math.log(0.4), B: math.log(0.3), C: math.log(0.2), D: math.log(0.1)})
    request = caller.request(1, "hi", 1, parameters={"typical_p": mass, "seed": 1}, top_n_tokens=4)
    (top,) = caller.answer(request)[0].top_tokens
    assert sorted(top.ids) == kept


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_c093_zeros_are_neutral(start, version):
    caller = start().caller(version)
    zeros = caller.request(1, "hello", 5)
    zeros.parameters.CopyFrom(caller.pb.NextTokenChooserParameters())
    answer, neutral = caller.answer(zeros), caller.answer(caller.request(2, "hello", 5))
    assert ids_of(answer) == ids_of(neutral) and logprobs_of(answer) == logprobs_of(neutral)
    assert all(math.isfinite(logprob) for logprob in logprobs_of(answer))


@pytest.mark.parametrize(("gamma", "delta"), [(0.5, 2.0), (0.25, 5.0)])
def test_c094_green_tokens_gain_delta(start, gamma, delta):
    def flat(tokens):
        return [0.0] * VOCAB_SIZE

    variables = {"WATERMARK_GAMMA": str(gamma), "WATERMARK_DELTA": str(delta)}
    caller = start(model=MockModel(logits=flat), variables=variables).v3

    def green_after(prompt: str) -> set[int]:
        request = caller.request(1, prompt, 1, parameters={"watermark": True}, top_n_tokens=VOCAB_SIZE)
        (top,) = caller.answer(request)[0].top_tokens
        levels = sorted({round(logprob, 4) for logprob in top.logprobs})
        assert len(levels) == 2 and levels[1] - levels[0] == pytest.approx(delta, abs=1e-3)
        return {token for token, logprob in zip(top.ids, top.logprobs, strict=True) if logprob > levels[0] + delta / 2}

    green = green_after("abc")
    assert len(green) == int(VOCAB_SIZE * gamma)
    assert green_after("xyc") == green != green_after("abd")
    plain = caller.answer(caller.request(2, "abc", 1, top_n_tokens=2))[0]
    assert plain.tokens.logprobs[0] == pytest.approx(-math.log(VOCAB_SIZE), abs=1e-5)
