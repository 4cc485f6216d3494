"""A request in several stays says what it says in one: tokens, texts, draws, grammar and end, wherever a stay ends."""

from dataclasses import replace

import pytest

from mocks.mock_model import EOS, MockModel
from text_generation_server.engine.types import (
    FinishReason,
    GeneratedText,
    Generation,
    PrefillCommand,
    Request,
    StoppingParams,
)
from text_generation_server.errors import InvalidRequest
from text_generation_server.grammar.grammar_type import GrammarType
from text_generation_server.sampling.params import SamplingParams

PROMPT = tuple("é🙂".encode())
SAID = "ab🙂 stop and é\N{REPLACEMENT CHARACTER}🙂🙂!".encode().replace(
    "\N{REPLACEMENT CHARACTER}".encode(), b"\x80" * 25
)
"""What the model says, a byte a token: characters of several tokens, and more invalid bytes than are held back."""

LENGTHS = [1, 2, 3, 4, 5, 7, 16, 30, 39]


def reciting(ending: int | None = None) -> MockModel:
    """Says SAID after PROMPT; `ending`: how many tokens it says before the end of sequence."""

    def logits(tokens: list[int]) -> list[float]:
        said = len(tokens) - len(PROMPT)
        found = [0.0] * 257
        found[EOS if said == ending else SAID[said % len(SAID)]] = 20.0
        return found

    return MockModel(logits=logits)


def stay(engine, request: Request) -> list[Generation]:
    """One stay of a request, from prefill to end."""
    result = engine.prefill(PrefillCommand(1, (request,)))
    generations = [*result.generations]
    while result.batch:
        result = engine.decode([1])
        generations += result.generations
    return generations


def life(engine, stopping: StoppingParams, length: int, **rest) -> tuple[list[int], list[str], GeneratedText]:
    """All stays of at most `length` tokens: ids, texts and end."""
    ids: list[int] = []
    texts: list[str] = []
    while True:
        missing = stopping.max_new_tokens - len(ids)
        now = replace(stopping, max_new_tokens=min(length, missing), resumable=length < missing)
        request = Request(7, (*PROMPT, *ids), rest.get("sampling", SamplingParams()), now, generated=len(ids))
        generations = stay(engine, request)
        ids += [token for generation in generations for token in generation.tokens.ids]
        texts += [text for generation in generations for text in generation.tokens.texts]
        end = generations[-1].finished
        if end.finish_reason is not FinishReason.LENGTH or end.generated_tokens == stopping.max_new_tokens:
            return ids, texts, end
        assert end.text == "" and end.generated_tokens == len(ids)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(
    ("stops", "ending", "text"),
    [
        ((), None, SAID.decode("utf-8", "replace")),
        ((), 4, "ab\N{REPLACEMENT CHARACTER}"),
        (("stop",), None, "ab🙂 stop"),
        (("🙂 s", "p and"), None, "ab🙂 s"),
        (("🙂🙂!",), None, SAID.decode("utf-8", "replace")),
        (("zz",), 9, "ab🙂 st"),
    ],
)
def test_ids_texts_and_end(make_engine, stops, ending, text, length):
    stopping = StoppingParams(len(SAID), stops)
    engine = make_engine(model=reciting(ending))
    assert life(engine, stopping, length) == (whole := life(engine, stopping, len(SAID)))
    assert whole[2].text == text
    assert "".join(whole[1]).removesuffix("</s>") == text


@pytest.mark.parametrize("length", [1, 5, 16])
@pytest.mark.parametrize("speculate", [0, 2])
@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(),
        SamplingParams(temperature=2.0, seed=7),
        SamplingParams(repetition_penalty=1.5, frequency_penalty=0.5),
        SamplingParams(count_penalty=0.5, presence_penalty=-0.5, logit_bias=((7, 1.0),)),
        SamplingParams(watermark=True),
        SamplingParams(grammar="([a-z]{3} ){9}", grammar_type=GrammarType.REGEX, do_sample=True, seed=3),
    ],
    ids=["greedy", "seed", "penalties", "answer", "watermark", "grammar"],
)
def test_choices_go_on(make_engine, sampling, length, speculate):
    engine = make_engine(speculate=speculate)
    stopping = StoppingParams(40, ignore_eos=sampling.grammar == "")
    assert life(engine, stopping, length, sampling=sampling) == life(engine, stopping, 40, sampling=sampling)


@pytest.mark.parametrize("length", LENGTHS)
def test_an_end_is_as_late_in_many_stays_as_in_one(make_engine, length):
    engine = make_engine(model=reciting())
    stopping = StoppingParams(len(SAID), ("b🙂",), stop_token_ids=(ord("a"),), min_new_tokens=6)
    ids, texts, end = life(engine, stopping, length)
    assert bytes(ids).endswith(b" stop a") and ids[0] != ord("a")
    assert end == GeneratedText(bytes(ids[:-1]).decode(), len(ids), FinishReason.EOS_TOKEN, None)
    assert "".join(texts) == end.text


def test_what_was_generated_is_never_cut_for_want_of_slots(make_engine):
    request = Request(1, (*PROMPT, 1, 2, 3), SamplingParams(), StoppingParams(4), slots=tuple(range(6)), generated=3)
    with pytest.raises(InvalidRequest, match="6 slots cannot hold"):
        make_engine().prefill(PrefillCommand(1, (request,)))
