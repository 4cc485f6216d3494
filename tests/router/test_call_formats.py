"""Answers as models write them: the calls in them, their reasoning and their text, however they are cut."""

import json
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mocks.chats import FAMILIES
from mocks.spoken import SCHEMAS, SPOKEN, TOOLS, Spoken
from text_generation_router.chat.dialect import Dialect
from text_generation_router.chat.events import CallArguments, CallBegin, CallEnd, Content, Event, Reasoning, collected
from text_generation_router.chat.formats.registry import TOOL_FORMATS
from text_generation_router.chat.reader import Reader
from text_generation_router.chat.tools import Tools
from text_generation_router.errors import StartError

REASONING = {"mistral": "mistral", "gemma4": "gemma4", "openai": "openai_gptoss"}
CASES = [
    pytest.param(name, spoken, id=f"{name}-{number}")
    for name, answers in SPOKEN.items()
    for number, spoken in enumerate(answers)
]


def reader(name: str, spoken: Spoken) -> Reader:
    dialect = Dialect.of("", name, REASONING.get(name, "qwen3"))
    tools = Tools(TOOLS, SCHEMAS, parallel=spoken.parallel)
    return dialect.form("…<think>\n" if spoken.opened else "…", tools).reader()


def read(name: str, spoken: Spoken, pieces: Iterable[str]) -> list[Event]:
    reading = reader(name, spoken)
    return [event for piece in pieces for event in reading.feed(piece)] + list(reading.end())


def joined(events: Sequence[Event]) -> list[tuple[object, ...]]:
    """The events with pieces put together, and without ids, which are never the same."""
    told: list[tuple[object, ...]] = []
    for event in events:
        match event:
            case CallBegin(index, _, name):
                told.append((CallBegin, index, name))
            case CallEnd(index, broken):
                told.append((CallEnd, index, broken))
            case CallArguments(index, text) if told and told[-1][:2] == (CallArguments, index):
                told[-1] = (CallArguments, index, f"{told[-1][2]}{text}")
            case CallArguments(index, text):
                told.append((CallArguments, index, text))
            case Content(text) | Reasoning(text) if told and told[-1][0] is type(event):
                told[-1] = (type(event), f"{told[-1][1]}{text}")
            case Content(text) | Reasoning(text):
                told.append((type(event), text))
    return told


@pytest.mark.parametrize(("name", "spoken"), CASES)
def test_an_answer_is_read(name, spoken):
    message = collected(read(name, spoken, [spoken.text]))
    assert [(call.name, json.loads(call.arguments)) for call in message.calls] == spoken.calls
    assert message.content == (spoken.text if spoken.content is None else spoken.content)
    assert message.reasoning == spoken.reasoning


@pytest.mark.parametrize(("name", "spoken"), CASES)
def test_pieces_of_an_answer_are_read_as_the_whole(name, spoken):
    text = spoken.text
    whole = joined(read(name, spoken, [text]))
    assert joined(read(name, spoken, text)) == whole
    for cut in range(1, len(text)):
        assert joined(read(name, spoken, [text[:cut], text[cut:]])) == whole, f"{text[:cut]}|{text[cut:]}"


FRAGMENTS = [spoken.text for answers in SPOKEN.values() for spoken in answers]


@st.composite
def written(draw: st.DrawFn) -> str:
    """Parts of answers, one behind the other."""
    parts = draw(st.lists(st.tuples(st.sampled_from(FRAGMENTS), st.integers(0, 99), st.integers(0, 99)), max_size=3))
    return "".join(text[len(text) * start // 99 : len(text) * stop // 99] for text, start, stop in parts)


@given(name=st.sampled_from(list(TOOL_FORMATS)), text=written(), cut=st.integers(0, 99))
@settings(max_examples=200, deadline=None)
def test_whatever_a_model_writes_is_read(name, text, cut):
    spoken, place = Spoken(text), len(text) * cut // 99
    whole = read(name, spoken, [text])
    assert joined(read(name, spoken, [text[:place], text[place:]])) == joined(whole) == joined(read(name, spoken, text))
    assert all(isinstance(json.loads(call.arguments), dict) for call in collected(whole).calls)


TEMPLATES = {"qwen": "hermes", "llama3": "llama3_json", "mistral": "mistral", "gemma": "json", "zephyr": "json"}


@pytest.mark.parametrize("family", TEMPLATES)
def test_a_format_is_known_by_the_template(family):
    assert Dialect.of(FAMILIES[family], None, None).calls is TOOL_FORMATS[TEMPLATES[family]]


def test_a_format_that_nothing_has_is_refused():
    for names in (("qwen4", None), (None, "thoughts")):
        with pytest.raises(StartError, match="expected one of"):
            Dialect.of("", *names)
