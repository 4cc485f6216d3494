"""Rules as clients write them, Lark's or GBNF's (llama.cpp, xgrammar), in Lark's notation. Knows no vocabulary."""

import re

from llguidance.gbnf_to_lark import gbnf_to_lark

from text_generation_server.errors import InvalidRequest, excerpt

MAX_CHARACTERS = 2**16
"""Longest text. What turns GBNF into Lark's notation takes the square of the number of rules, and an alternative in
Lark's a hundred times as long as one in a regular expression."""

_GBNF_RULE = re.compile(r"^\s*[\w-]+\s*::=", re.MULTILINE)
_COMMENT = re.compile(r'("(?:\\.|[^"\\\n])*"|\[(?:\\.|[^\]\\\n])*\])|#[^\n]*')
"""A comment, or first what may have its sign inside: a text or a class of characters."""
_NEXT_LINE = re.compile(r"\n[ \t]*(?![\w-]+\s*::=|[#\s]|$)")
"""Where a rule goes on in the next line, as some write it; the library takes that in brackets only."""

_OPTIONS = "%llguidance {}"
"""What the library begins with."""

_OWN_OPTIONS = re.compile(r"^\s*%llguidance\b", re.MULTILINE)


def to_lark(text: str) -> str:
    """The rules in Lark's notation; whether they can be compiled shows only then.

    Raises:
        InvalidRequest: there are too many, they set options, or they are in GBNF and cannot be read.
    """
    if len(text) > MAX_CHARACTERS:
        raise InvalidRequest(f"the grammar has {len(text)} characters of rules, expected at most {MAX_CHARACTERS}")
    if _OWN_OPTIONS.search(text):
        raise InvalidRequest("the grammar sets %llguidance options, which are the server's; leave them out")
    if not _GBNF_RULE.search(text):
        return text
    try:
        bare = _COMMENT.sub(lambda found: found[1] or "", text)
        return gbnf_to_lark(_NEXT_LINE.sub(" ", bare)).removeprefix(_OPTIONS)
    except Exception as error:  # the library raises plain ones, and runs into the depth of the stack
        raise InvalidRequest(f"the grammar cannot be read as GBNF: {excerpt(str(error))}") from error
