"""Rules as clients write them, Lark's or GBNF's (llama.cpp, xgrammar), in Lark's notation. Knows no vocabulary."""

import re

from llguidance.gbnf_to_lark import gbnf_to_lark

from text_generation_server.errors import InvalidRequest, excerpt

MAX_CHARACTERS = 2**16
"""Longest text. What turns GBNF into Lark's notation takes the square of the number of rules, and an alternative in
Lark's a hundred times as long as one in a regular expression."""

_GBNF_RULE = re.compile(r"^\s*[\w-]+\s*::=", re.MULTILINE)
_NEXT_LINE = re.compile(r"\n[ \t]*(?![\w-]+\s*::=|[#\s]|$)")
"""Where a rule goes on in the next line, as some write it; the library takes that in brackets only."""

_OPTIONS = "%llguidance {}"
"""What the library begins with; the options are ours to choose."""


def to_lark(text: str) -> str:
    """The rules in Lark's notation; whether they can be compiled shows only then.

    Raises:
        InvalidRequest: there are too many, or they are in GBNF and cannot be read.
    """
    if len(text) > MAX_CHARACTERS:
        raise InvalidRequest(f"the grammar has {len(text)} characters of rules, expected at most {MAX_CHARACTERS}")
    if not _GBNF_RULE.search(text):
        return text
    try:
        return gbnf_to_lark(_NEXT_LINE.sub(" ", text)).removeprefix(_OPTIONS)
    except Exception as error:  # the library raises plain ones, and runs into the depth of the stack
        raise InvalidRequest(f"the grammar cannot be read as GBNF: {excerpt(str(error))}") from error
