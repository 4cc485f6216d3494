"""Schemas that compose objects, as OpenAPI, pydantic and Zod write them: the grammar accepts what JSON Schema does."""

import json
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher
from pydantic import BaseModel

from mocks.byte_tokenizer import ByteTokenizer
from text_generation_server.errors import InvalidRequest
from text_generation_server.grammar.closing import closed
from text_generation_server.grammar.compiler import GrammarCompiler
from text_generation_server.grammar.grammar_type import GrammarType
from text_generation_server.grammar.syntax import to_library_grammar
from text_generation_server.grammar.vocabulary import build_vocabulary

VOCABULARY = build_vocabulary([bytes([value]) for value in range(256)] + [b"</s>"], frozenset({256}), frozenset(), 257)


def accepts(schema: dict[str, Any], value: Any) -> bool:
    """Whether a grammar lets a value through, in any order of its keys."""
    orders = [dict(order) for order in permutations(value.items())] if isinstance(value, dict) else [value]
    matcher = LLMatcher(VOCABULARY, to_library_grammar(GrammarType.JSON, json.dumps(schema)), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    return any(_follows(matcher.deep_copy(), json.dumps(order).encode()) for order in orders)


def _follows(matcher: LLMatcher, text: bytes) -> bool:
    return matcher.try_consume_tokens(list(text)) == len(text) and matcher.is_accepting()


def shape(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


INT, TEXT = {"type": "integer"}, {"type": "string"}
A, B = shape("a", a=INT), shape("b", b=TEXT)
CAT, DOG = shape("kind", "a", kind={"const": "cat"}, a=INT), shape("kind", "b", kind={"const": "dog"}, b=TEXT)
DEFS = {"$defs": {"A": A, "B": B, "Cat": CAT, "Dog": DOG}}
OPENAPI = {"components": {"schemas": {"A": A, "AB": {"allOf": [{"$ref": "#/components/schemas/A"}, B]}}}}
BOTH, MORE = {"a": 1, "b": "x"}, {"a": 1, "b": "x", "c": 2}


class Loop(BaseModel):
    """Pydantic puts its schema into `$defs`, and a reference in front."""

    a: int
    more: "Loop | None"


@pytest.mark.parametrize(
    ("schema", "taken", "refused"),
    [
        ({"allOf": [A, B]}, [BOTH], [MORE, {"a": 1}]),
        ({**DEFS, "allOf": [{"$ref": "#/$defs/A"}, B]}, [BOTH], [MORE, {"b": "x"}]),
        ({**OPENAPI, "$ref": "#/components/schemas/AB"}, [BOTH], [MORE, {"b": "x"}]),
        ({**OPENAPI, **shape("v", v={"$ref": "#/components/schemas/AB"})}, [{"v": BOTH}], [{"v": MORE}]),
        ({**DEFS, "allOf": [{"$ref": "#/$defs/A"}], **B}, [BOTH], [MORE, {"b": "x"}]),
        ({**DEFS, "$ref": "#/$defs/A", **B}, [BOTH], [MORE, {"b": "x"}]),
        ({**DEFS, **shape("v", v={"allOf": [{"$ref": "#/$defs/A"}], "title": "V"})}, [{"v": {"a": 1}}], [{"v": BOTH}]),
        ({"allOf": [A, B], "unevaluatedProperties": False}, [BOTH], [MORE]),
        ({"allOf": [A, B], "unevaluatedProperties": True}, [BOTH, MORE], [{"a": 1}]),
        ({"allOf": [{**A, "additionalProperties": True}, B]}, [BOTH, MORE], [{"a": 1}]),
        ({"allOf": [A, {"type": "object", "patternProperties": {"^x": INT}}]}, [{"a": 1, "x": 2}], [{"a": 1, "x": ""}]),
        ({"allOf": [A, {"required": ["a"]}]}, [{"a": 1}], [BOTH]),
        ({**shape("c", c=INT), "anyOf": [A, B]}, [{"c": 2, "a": 1}, {"c": 2, "b": "x"}], [{"c": 2}, MORE]),
        ({**shape(a=INT, b=TEXT), "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, [BOTH, {"a": 1}], [{}, MORE]),
        ({**shape("c", c=INT), "anyOf": [{**A, "additionalProperties": INT}, B]}, [{"c": 2, "a": 1, "z": 3}], [MORE]),
        ({**shape("c", c=INT), "oneOf": [CAT, DOG]}, [{"c": 2, "kind": "dog", "b": "x"}], [{"kind": "dog", "b": "x"}]),
        (
            {**DEFS, **shape(c=INT), "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]},
            [{"c": 2, "kind": "cat", "a": 1}, {"kind": "dog", "b": "x"}],
            [{"kind": "cat", "b": "x"}, {"kind": "cat", "a": 1, "b": "x"}],
        ),
        ({"allOf": [{"anyOf": [A, shape("c", c=INT)]}, B]}, [BOTH, {"b": "x", "c": 2}], [MORE, {"b": "x"}]),
        (shape("v", v={"type": "array", "prefixItems": [A], "items": False}), [{"v": [{"a": 1}]}], [{"v": [BOTH]}]),
        (Loop.model_json_schema(), [{"a": 1, "more": {"a": 2, "more": None}}], [{"a": 1, "more": {"a": 2, "b": 1}}]),
    ],
)
def test_compositions(schema: dict[str, Any], taken: list[Any], refused: list[Any]) -> None:
    assert [value for value in taken if not accepts(schema, value)] == []
    assert [value for value in refused if accepts(schema, value)] == []


parts = st.dictionaries(st.sampled_from("abc"), st.sampled_from([INT, TEXT]), min_size=1, max_size=2).flatmap(
    lambda properties: st.sets(st.sampled_from(sorted(properties))).map(lambda names: shape(*names, **properties))
)
values = st.dictionaries(st.sampled_from("abc"), st.sampled_from([1, "x"]), max_size=3)


@settings(max_examples=150, deadline=None)
@given(st.lists(parts, min_size=1, max_size=2), parts, st.lists(parts, min_size=1, max_size=2), values)
def test_a_value_is_taken_when_it_fits_all_parts_and_one_alternative(all_of, base, any_of, value) -> None:
    def fits(joined: list[dict[str, Any]]) -> bool:
        kinds = {"integer": int, "string": str}
        typed = all(
            isinstance(value[n], kinds[p["type"]]) for s in joined for n, p in s["properties"].items() if n in value
        )
        known = {name for part in joined for name in part["properties"]}
        return typed and value.keys() <= known and all(value.keys() >= set(part["required"]) for part in joined)

    expected = any(fits([base, *all_of, alternative]) for alternative in any_of)
    try:
        assert accepts({**base, "allOf": all_of, "anyOf": any_of}, value) == expected
    except AssertionError as error:
        if "nsatisfiable" not in str(error):
            raise
        assert not expected


def test_explicitly_closed_parts_that_need_more_are_told_so() -> None:
    parts = [{**part, "additionalProperties": False} for part in (A, B)]
    with pytest.raises(InvalidRequest, match="`additionalProperties: false` in a part of an allOf forbids"):
        GrammarCompiler(ByteTokenizer(), 257).start(GrammarType.JSON, json.dumps({"allOf": parts})).result()


def test_references_that_multiply_are_refused() -> None:
    definitions = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)}
    schema = {"$defs": {**definitions, "d40": A}, "properties": {"z": INT}, "$ref": "#/$defs/d0"}
    with pytest.raises(InvalidRequest, match="composes more than"):
        closed(schema)


def test_references_to_themselves_end() -> None:
    schema = {"$defs": {"A": {"allOf": [{"$ref": "#/$defs/A"}, A]}}, "allOf": [{"$ref": "#/$defs/A"}, B]}
    with pytest.raises(InvalidRequest, match="grammar"):
        GrammarCompiler(ByteTokenizer(), 257).start(GrammarType.JSON, json.dumps(schema)).result()


def test_what_is_no_composition_stays_as_it_is() -> None:
    schema = {**DEFS, "anyOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}], "default": {"properties": {}}}
    assert closed(schema)["anyOf"] == schema["anyOf"] and closed(schema)["default"] == {"properties": {}}
    assert closed(A) == {**A, "additionalProperties": False}
    assert closed(closed(A)) == closed(A)
