"""Requests with grammars in the engine: masks follow their request wherever it goes, and a bad grammar fails alone."""

import random
import re

import pytest

from mocks.mock_model import EOS, MockModel, greedy_continuation
from mocks.word_grammar import WORDS, word_continuation, word_grammar
from text_generation_server.engine.types import (
    Failure,
    FinishReason,
    Generation,
    PrefillCommand,
    Request,
    StoppingParams,
)
from text_generation_server.errors import GenerationError, InvalidRequest
from text_generation_server.grammar.grammar_type import GrammarType
from text_generation_server.sampling.params import SamplingParams

BAD = (
    SamplingParams(grammar="(a|b", grammar_type=GrammarType.REGEX),
    SamplingParams(grammar="[1, 2]", grammar_type=GrammarType.JSON),
    SamplingParams(grammar='{"type": "nothing"}', grammar_type=GrammarType.JSON),
    SamplingParams(grammar="a+"),
)

pytestmark = pytest.mark.parametrize("run_ahead", [True, False], ids=["run-ahead", "no-run-ahead"])


def ask(request_id: int, prompt: bytes, new: int, sampling: SamplingParams | None = None, **rest) -> Request:
    return Request(request_id, tuple(prompt), sampling or SamplingParams(), StoppingParams(new), **rest)


def finish(engine, batch_ids: list[int], answers: dict[int, list[Generation]]) -> dict[int, list[int]]:
    """Decode the batches, joined, to their end; the ids of all answers, those so far included."""
    while batch_ids:
        result = engine.decode(batch_ids)
        note(answers, result.generations)
        batch_ids = [result.batch.id] if result.batch else []
    return {request_id: [t for g in found for t in g.tokens.ids] for request_id, found in answers.items()}


def note(answers: dict[int, list[Generation]], generations: tuple[Generation, ...]) -> None:
    for generation in generations:
        answers.setdefault(generation.request_id, []).append(generation)


def start(engine, batch_id: int, *requests: Request) -> dict[int, list[Generation]]:
    answers: dict[int, list[Generation]] = {}
    note(answers, engine.prefill(PrefillCommand(batch_id, requests)).generations)
    return answers


def test_three_digits_then_the_end(make_engine, run_ahead):
    engine = make_engine(run_ahead=run_ahead)
    digits = SamplingParams(grammar=r"[0-9]{3}", grammar_type=GrammarType.REGEX)
    answers = start(engine, 1, ask(1, b"pin: ", 20, digits))
    finish(engine, [1], answers)
    last = answers[1][-1]
    assert last.tokens.ids == [EOS] and last.tokens.logprobs == [0.0]
    assert re.fullmatch("[0-9]{3}", last.finished.text)
    assert (last.finished.finish_reason, last.finished.generated_tokens) == (FinishReason.EOS_TOKEN, 4)


@pytest.mark.parametrize("words", WORDS)
def test_every_word_is_the_best_that_its_grammar_allows(make_engine, run_ahead, words):
    engine = make_engine(run_ahead=run_ahead)
    prompts = [bytes([number]) * 3 for number in range(12)]
    requests = [ask(number, prompt, 9, word_grammar(words)) for number, prompt in enumerate(prompts)]
    found = finish(engine, [1], start(engine, 1, *requests))
    assert found == {number: word_continuation(words, prompt, 9) for number, prompt in enumerate(prompts)}


def test_masks_stay_with_their_rows_over_filter_and_concat(make_engine, run_ahead):
    engine = make_engine(run_ahead=run_ahead)
    second, third = (ask(n, prompt, 9, word_grammar(WORDS[n - 2])) for n, prompt in ((2, b"two"), (3, b"three")))
    answers = start(engine, 1, ask(1, b"one", 9), second, third)
    answers |= start(engine, 2, ask(4, b"four", 9, word_grammar(WORDS[2])), ask(5, b"five", 9))
    engine.filter(1, [3, 1])
    found = finish(engine, [2, 1], answers)
    assert found.pop(2) == word_continuation(WORDS[0], b"two", 1)
    assert found == {
        1: greedy_continuation(b"one", 9),
        3: word_continuation(WORDS[1], b"three", 9),
        4: word_continuation(WORDS[2], b"four", 9),
        5: greedy_continuation(b"five", 9),
    }


def test_grammars_wait_for_the_end_of_a_chunked_prompt(make_engine, run_ahead):
    engine = make_engine(run_ahead=run_ahead, max_prefill_tokens=4)
    requests = [ask(n, b"a prompt of chunks", 9, word_grammar(WORDS[n]), chunk=4) for n in range(3)]
    answers = start(engine, 1, *requests)
    assert answers == {}
    engine.filter(1, [2, 0])  # the middle one leaves before it has chosen anything
    assert finish(engine, [1], answers) == {n: word_continuation(WORDS[n], b"a prompt of chunks", 9) for n in (0, 2)}


def test_sampled_rows_obey_their_grammar_too(make_engine, run_ahead):
    engine = make_engine(run_ahead=run_ahead)
    schema = '{"properties": {"ok": {"type": "boolean"}, "n": {"enum": [1, 20]}}, "required": ["ok", "n"]}'
    sampling = [
        SamplingParams(do_sample=True, seed=seed, temperature=3.0, grammar=schema, grammar_type=GrammarType.JSON)
        for seed in range(6)
    ]
    answers = start(engine, 1, *(ask(n, b"json", 80, row) for n, row in enumerate(sampling)))
    finish(engine, [1], answers)
    texts = [answers[n][-1].finished.text for n in range(6)]
    assert all(re.fullmatch(r'\{\s*"ok"\s*:\s*(true|false)\s*,\s*"n"\s*:\s*(1|20)\s*\}', text) for text in texts), texts
    assert len(set(texts)) > 1


def test_top_tokens_are_allowed_tokens(make_engine, run_ahead):
    engine = make_engine(run_ahead=run_ahead)
    answers = start(engine, 1, ask(1, b"top", 9, word_grammar(("yes", "no")), top_n_tokens=5))
    assert sorted(answers[1][0].top_tokens[0].ids) == sorted(b"yn")
    assert finish(engine, [1], answers)[1] == word_continuation(("yes", "no"), b"top", 9)


def test_a_complete_answer_that_ignores_the_end_repeats_it(make_engine, run_ahead):
    engine = make_engine(run_ahead=run_ahead)
    request = Request(1, tuple(b"p"), word_grammar(["ab"]), StoppingParams(5, ignore_eos=True))
    assert finish(engine, [1], start(engine, 1, request)) == {1: [*b"ab", EOS, EOS, EOS]}


@pytest.mark.parametrize("bad", BAD, ids=["regex", "no-schema", "schema", "no-kind"])
def test_a_bad_grammar_alone_is_an_error(make_engine, run_ahead, bad):
    engine = make_engine(run_ahead=run_ahead)
    with pytest.raises(InvalidRequest, match="grammar"):
        engine.prefill(PrefillCommand(1, (ask(1, b"bad", 9, bad),)))
    assert engine.batch_ids == () and len(engine.pool.rows) == engine.settings.max_rows


@pytest.mark.parametrize("bad", BAD, ids=["regex", "no-schema", "schema", "no-kind"])
def test_a_bad_grammar_among_others_ends_alone_and_says_why(make_engine, run_ahead, bad):
    engine = make_engine(run_ahead=run_ahead)
    good = ask(3, b"good", 9, word_grammar(WORDS[0]))
    answers = start(engine, 1, ask(1, b"free", 9), ask(2, b"bad", 9, bad, top_n_tokens=2), good)
    failed = answers.pop(2)[0].finished
    assert isinstance(failed, Failure) and "grammar" in failed.reason and failed.generated_tokens == 1
    assert finish(engine, [1], answers) == {
        1: greedy_continuation(b"free", 9),
        3: word_continuation(WORDS[0], b"good", 9),
    }
    assert len(engine.pool.rows) == engine.settings.max_rows


def test_a_failed_step_takes_its_masks_with_it(make_engine, run_ahead):
    """Steps launched behind a failed one wait for tokens that never come; they must not hold up what follows."""
    engine = make_engine(run_ahead=run_ahead, model=MockModel(fail_on=ord("n")))
    answers = start(engine, 1, ask(1, b"p", 9, word_grammar(["no"])))
    with pytest.raises(GenerationError):
        finish(engine, [1], answers)
    assert finish(engine, [2], start(engine, 2, ask(2, b"q", 9, word_grammar(["yes"])))) == {2: [*b"yes", EOS]}


def test_watermarks_do_not_depend_on_company(make_engine, run_ahead):
    marked = SamplingParams(watermark=True)
    alone = make_engine(run_ahead=run_ahead)
    prompts = [bytes([65 + n, 66]) for n in range(8)]
    single = {n: finish(alone, [n], start(alone, n, ask(n, p, 12, marked)))[n] for n, p in enumerate(prompts)}
    engine = make_engine(run_ahead=run_ahead)
    mates = [ask(20, b"plain", 12), *(ask(n, p, 12, marked) for n, p in enumerate(prompts[:5]))]
    answers = start(engine, 1, *mates)
    answers |= start(engine, 2, *(ask(n, p, 12, marked, chunk=1) for n, p in enumerate(prompts) if n >= 5))
    together = finish(engine, [1, 2], answers)
    assert together.pop(20) == greedy_continuation(b"plain", 12)
    assert together == single
    assert single != {n: greedy_continuation(p, 12) for n, p in enumerate(prompts)}


def test_random_company_changes_no_answer(make_engine, run_ahead):
    """Grammars, free rows, joins, filters and chunks at random; every answer is the one found without an engine."""
    for seed in range(60):
        rng = random.Random(seed)
        engine = make_engine(run_ahead=run_ahead, max_prefill_tokens=rng.randint(1, 12))
        expected, answers, batches = {}, {}, {}
        for number in range(6):
            prompt, new = bytes(rng.randrange(200) for _ in range(rng.randint(1, 9))), rng.randint(1, 7)
            words = rng.choice((None, *WORDS))
            sampling = None if words is None else word_grammar(words)
            expected[number] = word_continuation(words, prompt, new) if words else greedy_continuation(prompt, new)
            chunk = rng.randint(1, len(prompt)) if rng.random() < 0.4 else None
            result = engine.prefill(PrefillCommand(number, (ask(number, prompt, new, sampling, chunk=chunk),)))
            step(answers, batches, result)
            if batches and rng.random() < 0.7:
                ids = rng.sample(sorted(batches), rng.randint(1, len(batches)))
                for batch_id in ids:
                    del batches[batch_id]
                step(answers, batches, engine.decode(ids))
            if batches and rng.random() < 0.3:
                batch_id, members = rng.choice(sorted(batches.items()))
                batches[batch_id] = engine.filter(
                    batch_id, rng.sample(members, rng.randint(1, len(members)))
                ).request_ids
        found = finish(engine, sorted(batches), answers)
        for number, ids in found.items():
            assert ids == expected[number][: len(ids)]
            if answers[number][-1].finished:
                assert ids == expected[number]


def step(answers, batches, result) -> None:
    note(answers, result.generations)
    if result.batch:
        batches[result.batch.id] = result.batch.request_ids
