"""What clients write as a grammar, in the form that the grammar library compiles. Knows no vocabulary."""

import json
from collections.abc import Mapping
from typing import Any

from llguidance import LLMatcher

from text_generation_server.engine.types import GrammarKind
from text_generation_server.errors import InvalidRequest

MAX_CHARACTERS = 2**20
"""Longest text of a grammar. One of 20 MB takes a minute and 5 GB to be refused."""

_OPTIONS = '%llguidance {"no_forcing": true}\n'
"""Every token that can lead to a match is allowed, not only the usual way to cut forced text into tokens."""

_LAYOUT = {"whitespace_pattern": r"[\x20\x0A\x0D\x09]{0,20}"}
"""Space between the parts of JSON: free, but a model cannot go on with it for ever."""

_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAPS = ("$defs", "$functions", "definitions", "patternProperties", "properties")
_ONE = ("additionalProperties", "items")


def to_library_grammar(kind: GrammarKind, text: str) -> str:
    """The grammar in the library's form; whether it can be compiled shows only then.

    Raises:
        InvalidRequest: the text is no grammar of this kind.
    """
    if len(text) > MAX_CHARACTERS:
        raise InvalidRequest(f"the grammar has {len(text)} characters, expected at most {MAX_CHARACTERS}")
    match kind:
        case GrammarKind.REGEX:
            lark = json.loads(LLMatcher.grammar_from_regex(text))["grammars"][0]["lark_grammar"]
            return LLMatcher.grammar_from_lark(_OPTIONS + lark)
        case GrammarKind.JSON:
            return LLMatcher.grammar_from_lark(f"{_OPTIONS}start: %json {_json_grammar(text)}")
        case GrammarKind.NONE:
            raise InvalidRequest(
                "a grammar was given with grammar_type NONE, expected JSON or REGEX; name its type or leave it empty"
            )


def unusable(problem: str) -> InvalidRequest:
    """The error for a grammar that the library rejected with `problem`."""
    reason, _, _ = problem.partition("<state>")
    return InvalidRequest(f"the grammar cannot be used: {reason.strip()}")


def closed(schema: Any) -> Any:
    """A JSON schema in which whatever has `properties` is an object, and has no others unless it says so.

    That is what clients of this protocol are used to: servers of it have always read schemas like this.
    """
    if not isinstance(schema, Mapping):
        return schema
    result = dict(schema)
    for key in _ONE:
        if key in result:
            result[key] = closed(result[key])
    for key in _LISTS:
        if isinstance(result.get(key), list):
            result[key] = [closed(part) for part in result[key]]
    for key in _MAPS:
        if isinstance(result.get(key), Mapping):
            result[key] = {name: closed(part) for name, part in result[key].items()}
    if isinstance(result.get("properties"), Mapping):
        result.setdefault("type", "object")
        result.setdefault("additionalProperties", False)
    return result


def _json_grammar(text: str) -> str:
    """A schema as the library is to read it."""
    try:
        schema = closed(json.loads(text))
    except ValueError as error:
        raise InvalidRequest(f"the grammar is no JSON ({error}), expected a JSON schema") from error
    except RecursionError as error:
        raise InvalidRequest("the grammar is nested too deeply, expected a JSON schema of less depth") from error
    if not isinstance(schema, dict):
        raise InvalidRequest(f"the grammar is a JSON {type(schema).__name__}, expected an object: a JSON schema")
    return json.dumps(schema | {"x-guidance": _LAYOUT})
