"""Grammars as clients send them, in the shards' terms, with the rules that they must keep.

Knows nothing of the rest of a request.
"""

import asyncio
import json
from typing import Any

from text_generation_router.errors import InvalidInput
from text_generation_router.schemas import JsonGrammar, RegexGrammar, SchemaGrammar
from text_generation_router.types import Grammar, GrammarType
from text_generation_server.engine.types import GrammarKind
from text_generation_server.errors import InvalidRequest
from text_generation_server.grammar.compiler import GrammarCompiler

_KINDS = {GrammarType.JSON: GrammarKind.JSON, GrammarType.REGEX: GrammarKind.REGEX}


TRIAL_TOKENS = 32
"""How far a grammar is followed before it is taken: most that cannot be followed fail within a few tokens."""


async def valid_grammar(given: JsonGrammar | SchemaGrammar | RegexGrammar, compiler: GrammarCompiler) -> Grammar:
    """What the shards get. Raises InvalidInput if they could not use it: `compiler` has their vocabulary."""
    match given:
        case RegexGrammar(value=pattern):
            grammar = Grammar(GrammarType.REGEX, pattern)
        case JsonGrammar(value=schema):
            grammar = Grammar(GrammarType.JSON, json.dumps(_schema(schema)))
        case SchemaGrammar(value=named):
            grammar = Grammar(GrammarType.JSON, json.dumps(_schema(named.json_schema)))
    try:
        compiling = compiler.start(_KINDS[grammar.type], grammar.text)
        await asyncio.shield(asyncio.wrap_future(compiling))  # others may wait for the same one
    except InvalidRequest as error:
        raise InvalidInput(f"grammar is not valid: {error}") from error
    return grammar


def _schema(value: Any) -> dict[str, Any]:
    """A schema given as an object, or as its text."""
    if not isinstance(value, dict | str):
        raise InvalidInput("grammar is not supported")
    try:
        schema = json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise InvalidInput(f"grammar is not valid: {error}") from error
    if not isinstance(schema, dict) or "properties" not in schema:
        raise InvalidInput("grammar is not valid: Grammar must have a 'properties' field")
    return schema
