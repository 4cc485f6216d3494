"""Grammars of calls that must be made: what they let through, and that it is read as calls."""

import json
from typing import Any

import pytest
from llguidance import LLMatcher
from pydantic import BaseModel

from mocks.spoken import BERN, NOW, TOOLS
from text_generation_router.chat.dialect import Dialect
from text_generation_router.chat.events import collected
from text_generation_router.chat.tools import Tools, offered_tools
from text_generation_server.grammar.grammar_type import GrammarType
from text_generation_server.grammar.syntax import to_library_grammar
from text_generation_server.grammar.vocabulary import build_vocabulary

VOCABULARY = build_vocabulary([bytes([value]) for value in range(256)] + [b"</s>"], frozenset({256}), frozenset(), 257)


class Leaf(BaseModel):
    colour: str


class Tree(BaseModel):
    leaves: list[Leaf]
    below: "Tree | None"


def function(name: str, schema: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": schema}}


TREE = {"leaves": [{"colour": "red"}], "below": {"leaves": [], "below": None}}
PLANT = function("plant", Tree.model_json_schema())
SELF = function("nest", {"type": "object", "properties": {"in": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}})


def lets(tools: Tools, text: str) -> bool:
    matcher = LLMatcher(VOCABULARY, to_library_grammar(GrammarType.JSON, json.dumps(tools.grammar())), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    return matcher.try_consume_tokens(list(text.encode())) == len(text.encode()) and matcher.is_accepting()


def written(*calls: tuple[str, Any], alone: bool = False) -> str:
    objects = [{"name": name, "arguments": arguments} for name, arguments in calls]
    return json.dumps(objects[0] if alone else objects)


@pytest.mark.parametrize(
    ("choice", "parallel", "taken", "refused"),
    [
        (
            "required",
            None,
            [[BERN], [BERN, NOW], [("plant", TREE)], [("nest", {"in": {"in": None}})]],
            [[], [("now", {"a": 1})], [("rain", {})], [("weather", {"days": 2})], [("plant", {"leaves": [1]})]],
        ),
        ({"type": "function", "function": {"name": "plant"}}, True, [], [[("plant", TREE)], [BERN]]),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [TOOLS[0], TOOLS[2]]},
            },
            True,
            [[BERN, NOW]],
            [[("plant", TREE)]],
        ),
    ],
)
def test_a_grammar_lets_calls_through(choice, parallel, taken, refused):
    tools = offered_tools([*TOOLS, PLANT, SELF], choice, parallel)
    assert all(lets(tools, written(*calls)) for calls in taken)
    assert not any(lets(tools, written(*calls)) for calls in refused)


@pytest.mark.parametrize("choice", ["required", "plant"])
def test_one_call_is_written_without_a_list(choice):
    tools = offered_tools([*TOOLS, PLANT], choice, False)
    assert lets(tools, written(("plant", TREE), alone=True)) and not lets(tools, written(("plant", TREE)))
    reader = Dialect.of("<tool_call></think>", None, None).form("<think>", tools).reader()
    (call,) = collected([*reader.feed(written(("plant", TREE), alone=True)), *reader.end()]).calls
    assert call.name == "plant" and json.loads(call.arguments) == TREE


def test_a_template_of_single_calls_gets_single_calls():
    template = "{{ raise_exception('This model only supports single tool-calls at once!') }}"
    tools = Dialect.of(template, "hermes", None).callable(offered_tools(TOOLS, "required", None))
    assert lets(tools, written(NOW, alone=True)) and not lets(tools, written(NOW))
