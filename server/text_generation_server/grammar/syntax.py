"""What clients write as a grammar, in the form that the grammar library compiles. Knows no vocabulary."""

import json
import re
from typing import Any

from llguidance import LLMatcher

from text_generation_server.errors import InvalidRequest, excerpt
from text_generation_server.grammar.closing import closed
from text_generation_server.grammar.ebnf import to_lark
from text_generation_server.grammar.grammar_type import GrammarType

MAX_CHARACTERS = 2**20
"""Longest text of a grammar. One of 20 MB takes a minute and 5 GB to be refused."""

_OPTIONS = '%llguidance {"no_forcing": true}\n'
"""Every token that can lead to a match is allowed, not only the usual way to cut forced text into tokens."""

_LAYOUT = {"whitespace_pattern": r"[\x20\x0A\x0D\x09]{0,20}"}
"""Space between the parts of JSON: free, but a model cannot go on with it for ever."""

_LISTING = f"\n   1 | {_OPTIONS}"
"""Where the library begins to show what we gave it, which is not what the client wrote."""

_REPEATED = re.compile(r'^at \d+\(\d+\): |invalid regex ".*" \(in regex\)[:;] | in regex /.*/$', re.DOTALL)
"""Where in that text, and the whole of a regular expression, which may be long."""

_ADVICE = (
    (
        "oneOf constraints are not supported. Enable 'coerce_one_of' option to approximate oneOf with anyOf",
        "oneOf is followed only where its schemas cannot both match; write anyOf, or require in each of them a "
        "property with another `const`",
    ),
    (
        "is unsatisfiable",
        "cannot be met; `additionalProperties: false` in a part of an allOf forbids what others add",
    ),
)
"""Advice of the library that only a program can follow, and what a client can do."""

_TOO_DEEP = "the grammar is nested too deeply, expected a JSON schema of less depth"


def to_library_grammar(kind: GrammarType, text: str) -> str:
    """The grammar in the library's form; whether it can be compiled shows only then.

    Raises:
        InvalidRequest: the text is no grammar of this kind.
    """
    _check_length(text)
    match kind:
        case GrammarType.REGEX:
            lark = json.loads(LLMatcher.grammar_from_regex(text))["grammars"][0]["lark_grammar"]
            return LLMatcher.grammar_from_lark(_OPTIONS + lark)
        case GrammarType.JSON:
            return LLMatcher.grammar_from_lark(f"{_OPTIONS}start: %json {_json_grammar(text)}")
        case GrammarType.EBNF:
            return LLMatcher.grammar_from_lark(_OPTIONS + to_lark(text))
        case GrammarType.NONE:
            raise InvalidRequest(
                "a grammar was given with grammar_type NONE, expected JSON, REGEX or EBNF: name its type, or send none"
            )


def unusable(problem: str) -> InvalidRequest:
    """The error for a grammar that the library rejected with `problem`, in one line that a client can act on."""
    reason, _, _ = problem.partition("<state>")
    reason, _, _ = reason.partition(_LISTING)
    head, _, cause = reason.rpartition("\nerror: ")
    if head:  # regular expressions are shown in lines of their own
        reason = f"{head.partition(chr(10))[0]} {cause}"
    for advice, ours in _ADVICE:
        reason = reason.replace(advice, ours)
    return InvalidRequest(f"the grammar cannot be used: {excerpt(_REPEATED.sub('', reason).strip())}")


def read_schema(text: str) -> dict[str, Any]:
    """The JSON schema in a text.

    Raises:
        InvalidRequest: it is none; the text says why.
    """
    _check_length(text)
    try:
        schema = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"the grammar is no JSON ({error}), expected a JSON schema") from error
    except ValueError as error:  # Python reads no longer numbers
        raise InvalidRequest("the grammar has a number of thousands of digits, expected shorter ones") from error
    except RecursionError as error:
        raise InvalidRequest(_TOO_DEEP) from error
    if not isinstance(schema, dict):
        raise InvalidRequest(f"the grammar is a JSON {type(schema).__name__}, expected an object: a JSON schema")
    return schema


def _json_grammar(text: str) -> str:
    """A schema as the library is to read it."""
    try:
        return json.dumps(closed(read_schema(text)) | {"x-guidance": _LAYOUT})
    except RecursionError as error:
        raise InvalidRequest(_TOO_DEEP) from error


def _check_length(text: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise InvalidRequest(f"the grammar has {len(text)} characters, expected at most {MAX_CHARACTERS}")
