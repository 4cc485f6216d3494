"""Where a value in brackets or quotes ends, for a text that comes in pieces. Knows neither formats nor events."""

import re
from collections.abc import Mapping

_BETWEEN = re.compile(r"[\s\w.,:+-]*")
"""All that JSON has between strings and brackets."""
_ANYTHING = re.compile(r".*", re.DOTALL)
_STRING = {'"': re.compile(r'["\\\x00-\x1f]')}
_PYTHON_STRINGS = {quote: re.compile(rf"[{quote}\\]") for quote in "'\""}
_ESCAPES = {chr(code): f"\\u{code:04x}" for code in range(32)} | {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Broken(Exception):
    """The text is not what its format says; what has been kept of it is text."""


class Nesting:
    """How far a value has been read.

    strings: by the quote that begins and ends a string, what is to be found in it: the quote, the backslash, and what
    `repairs` has another spelling for. between: what may stand between strings and brackets.
    complete: whether the value has ended. broken: whether something comes next that may not be there.
    piece: what the last scan has passed over, repaired.
    """

    def __init__(
        self, strings: Mapping[str, re.Pattern[str]], between: re.Pattern[str], repairs: Mapping[str, str]
    ) -> None:
        self.complete = False
        self.broken = False
        self.piece = ""
        self._strings = strings
        self._between = between
        self._repairs = repairs
        self._outside = re.compile(rf"[{''.join(strings)}{{}}\[\]]")
        self._depth = 0
        self._quote = ""
        self._escaped = False

    def scan(self, text: str, at: int) -> int:
        """Read on from a place, and say how far."""
        parts: list[str] = []
        while at < len(text) and not (self.complete or self.broken):
            if self._escaped:
                parts.append(text[at])
                self._escaped = False
                at += 1
                continue
            wanted = self._strings[self._quote] if self._quote else self._outside
            found = wanted.search(text, at)
            end = len(text) if found is None else found.start()
            allowed = end if self._quote else self._allowed(text, at, end)
            parts.append(text[at:allowed])
            at = allowed
            self.broken = allowed < end
            if found is not None and not self.broken:
                parts.append(self._pass(found[0]))
                at += 1
        self.piece = "".join(parts)
        return at

    def _allowed(self, text: str, at: int, end: int) -> int:
        """Up to where there is only what may stand between strings and brackets."""
        found = self._between.match(text, at, end)
        return at if found is None else found.end()

    def _pass(self, character: str) -> str:
        """Count a character; how it is to be spelt."""
        if self._quote:
            if character == self._quote:
                self._quote = ""
            elif character == "\\":
                self._escaped = True
            else:
                return self._repairs[character]
        elif character in self._strings:
            self._quote = character
        else:
            self._depth += 1 if character in "{[" else -1
        self.complete = not self._quote and self._depth <= 0
        return character


def json_nesting() -> Nesting:
    """For a JSON value whose strings may have line feeds and other control characters, which are escaped."""
    return Nesting(_STRING, _BETWEEN, _ESCAPES)


def python_nesting() -> Nesting:
    """For brackets of Python's."""
    return Nesting(_PYTHON_STRINGS, _ANYTHING, {})
