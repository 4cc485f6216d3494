"""Grammars as clients send them, in the shards' terms, with the rules that they must keep.

Knows nothing of the rest of a request.
"""

import asyncio
import json
import re
from typing import Any

from text_generation_router.errors import InvalidInput
from text_generation_router.schemas import (
    AnyGrammar,
    ChoiceGrammar,
    EbnfGrammar,
    JsonGrammar,
    OpenJsonGrammar,
    RegexGrammar,
    SchemaGrammar,
)
from text_generation_router.types import Grammar
from text_generation_server.errors import InvalidRequest
from text_generation_server.grammar.compiler import GrammarCompiler
from text_generation_server.grammar.grammar_type import GrammarType
from text_generation_server.grammar.syntax import read_schema

TRIAL_TOKENS = 32
"""How far a grammar is followed before it is taken: most that cannot be followed fail within a few tokens."""

_EMPTY = "(?:)"
"""What an empty regular expression means. On the wire an empty grammar is none."""

_SCHEMA_KEYS = frozenset(("properties", "allOf", "anyOf", "oneOf", "$ref"))


_MEANINGFUL = re.compile(r"[\\.+*?()|\[\]{}^$#&~-]")
"""Characters that mean something in a regular expression."""

_ESCAPED = r"\\\g<0>"


async def valid_grammar(given: AnyGrammar, compiler: GrammarCompiler) -> Grammar:
    """What the shards get. Raises InvalidInput if they could not use it: `compiler` has their vocabulary."""
    match given:
        case RegexGrammar(value=pattern):
            grammar = Grammar(GrammarType.REGEX, pattern or _EMPTY)
        case ChoiceGrammar(value=texts):
            grammar = Grammar(GrammarType.REGEX, _one_of(texts))
        case EbnfGrammar(value=rules):
            grammar = Grammar(GrammarType.EBNF, rules)
        case JsonGrammar(value=schema):
            grammar = Grammar(GrammarType.JSON, _text(schema))
        case SchemaGrammar(value=named):
            grammar = Grammar(GrammarType.JSON, _text(named.json_schema))
    try:
        if grammar.type is GrammarType.JSON and not isinstance(given, OpenJsonGrammar):
            await asyncio.to_thread(_require_object, grammar.text)
        compiling = compiler.start(grammar.type, grammar.text)
        await asyncio.shield(asyncio.wrap_future(compiling))  # others may wait for the same one
    except InvalidRequest as error:
        raise InvalidInput(f"grammar is not valid: {error}") from error
    return grammar


def _one_of(texts: list[str]) -> str:
    """A regular expression that these texts match. On the wire it is known to every shard."""
    if not texts:
        raise InvalidInput("a choice of answers cannot be empty")
    return "|".join(f"(?:{_MEANINGFUL.sub(_ESCAPED, text)})" for text in texts)


def _text(value: Any) -> str:
    """The text of a schema that is given as an object, or as its text."""
    if not isinstance(value, dict | str):
        raise InvalidInput("grammar is not supported: expected a JSON schema as an object, or as its text")
    try:
        return value if isinstance(value, str) else json.dumps(value)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or too deep
        raise InvalidInput("grammar is not valid: its numbers are too long, or it is nested too deeply") from error


def _require_object(schema: str) -> None:
    if not _SCHEMA_KEYS & read_schema(schema).keys():
        raise InvalidRequest("Grammar must have a 'properties' field, or be composed by allOf, anyOf, oneOf or $ref")
