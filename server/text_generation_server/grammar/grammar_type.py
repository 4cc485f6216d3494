"""The languages that grammars are written in."""

from enum import IntEnum


class GrammarType(IntEnum):
    """How a grammar is written; the numbers are the wire's."""

    NONE = 0
    JSON = 1
    REGEX = 2
    EBNF = 1000
