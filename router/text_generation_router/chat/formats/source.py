"""The text of an answer, read from left to right while it is still being written. Knows no format.

What reads it are generators. They yield events, and None when they need more text, and go on when there is some. So a
format can be read as if all of it were there.
"""

import re
from collections.abc import Callable, Generator
from functools import lru_cache
from typing import TypeVar

from text_generation_router.chat.events import Event
from text_generation_router.chat.formats.nesting import Broken, Nesting, json_nesting, python_nesting

T = TypeVar("T")

Steps = Generator[Event | None, None, T]
"""A part of reading an answer: events, None for want of text, and what was found in the end."""

Tell = Callable[[str], Event]
"""Makes an event of a piece of text."""

Hold = Callable[[str], str]
"""Leaves the end of a text away."""

_SPACE = re.compile(r"\s*")
_SCALAR = re.compile(r"[^\s,\]}]*")


def _nothing(text: str) -> str:
    return text


class Source:
    """What has been generated, and how far it has been read. ended: nothing will be added.

    Positions are only known until more text is asked for: what has been read is dropped then.
    """

    def __init__(self) -> None:
        self.ended = False
        self._text = ""
        self._at = 0
        self._keeping = False
        self._kept: list[str] = []
        self._kept_from = 0

    def push(self, text: str) -> None:
        """Add what has been generated."""
        if self._keeping:
            self._kept.append(self._text[self._kept_from : self._at])
        self._text = self._text[self._at :] + text
        self._at = self._kept_from = 0

    def keep(self) -> None:
        """Keep what is read from here on."""
        self._keeping = True
        self._kept.clear()
        self._kept_from = self._at

    def kept(self) -> str:
        """What has been read since `keep`."""
        return "".join(self._kept) + self._text[self._kept_from : self._at]

    def release(self) -> None:
        """Keep nothing any more."""
        self._keeping = False
        self._kept.clear()

    def more(self) -> Steps[None]:
        """Wait for text. Raises Broken where the answer has ended."""
        if self.ended:
            raise Broken
        yield None

    def peek(self) -> Steps[str]:
        """The next character that is no white space, "" at the end."""
        while True:
            start = self._behind_space()
            if start < len(self._text) or self.ended:
                return self._text[start : start + 1]
            yield None

    def pass_space(self) -> Steps[str]:
        """Pass over white space, and say what comes next as `peek` does."""
        following = yield from self.peek()
        self._at = self._behind_space()
        return following

    def ahead(self, *texts: str) -> Steps[str | None]:
        """Which of the texts comes next behind white space, the longest that does."""
        longest = max(map(len, texts))
        while True:
            start = self._behind_space()
            rest = self._text[start : start + longest]
            found = [text for text in texts if rest.startswith(text)]
            if self.ended or not any(len(text) > len(rest) and text.startswith(rest) for text in texts):
                return max(found, key=len, default=None)
            yield None

    def skip(self, *texts: str) -> Steps[str | None]:
        """Pass over white space and one of the texts, if one comes."""
        found = yield from self.ahead(*texts)
        yield from self.pass_space()
        self.take(found or "")
        return found

    def expect(self, *texts: str) -> Steps[str]:
        """Pass over white space and one of the texts, which is returned. Raises Broken if none of them comes."""
        found = yield from self.skip(*texts)
        if found is None:
            raise Broken
        return found

    def skip_line_feed(self) -> Steps[None]:
        """Pass over one, if it comes next."""
        while self._at == len(self._text) and not self.ended:
            yield None
        self._at += self._text.startswith("\n", self._at)

    def take_until(self, *marks: str) -> Steps[str]:
        """The text up to the first of the marks, which comes next then. Raises Broken if none comes."""
        while True:
            start, mark = self._find(marks)
            if mark is not None:
                text = self._text[self._at : start]
                self._at = start
                return text
            yield from self.more()

    def take_past(self, *marks: str) -> Steps[str]:
        """The text up to the first of the marks, which is passed over too. Raises Broken if none comes."""
        text = yield from self.take_until(*marks)
        yield from self.expect(*marks)
        return text

    def tell_until(self, marks: tuple[str, ...], tell: Tell, hold: Hold = _nothing) -> Steps[tuple[str, str | None]]:
        """Tell the text up to the first of the marks. Returns what was held of it, and the mark, which come next.

        hold: a text without the end that is not told before it is known what follows. The mark is None where the
        answer ends first.
        """
        while True:
            end, mark = self._find(marks)
            piece = self._text[self._at : end]
            told = hold(piece)
            self._at += len(told)
            if told:
                yield tell(told)
            if mark is not None or self.ended:
                return piece[len(told) :], mark
            yield None

    def take(self, text: str) -> None:
        """Pass over what comes next."""
        self._at += len(text)

    def json(self, tell: Tell | None = None) -> Steps[str]:
        """Pass over white space and a JSON value, which is returned, and told as it comes.

        Line feeds and other control characters that a string must not have are escaped. Brackets are counted, and
        little else checked. Raises Broken if there is no value, or no end of it.
        """
        if (yield from self.pass_space()) in ("{", "[", '"'):
            return (yield from self._nested(json_nesting(), tell))
        return (yield from self._scalar(tell))

    def python(self) -> Steps[str]:
        """Pass over what stands in brackets, which come next, by Python's rules of what is a string."""
        return (yield from self._nested(python_nesting(), None))

    def _nested(self, nesting: Nesting, tell: Tell | None) -> Steps[str]:
        pieces: list[str] = []
        while True:
            start, self._at = self._at, nesting.scan(self._text, self._at)
            if self._at > start:
                pieces.append(nesting.piece)
                if tell is not None:
                    yield tell(nesting.piece)
            if nesting.broken:
                raise Broken
            if nesting.complete:
                return "".join(pieces)
            yield from self.more()

    def _scalar(self, tell: Tell | None) -> Steps[str]:
        while True:
            found = _SCALAR.match(self._text, self._at)
            assert found is not None
            if found.end() < len(self._text) or self.ended:
                break
            yield None
        if not found[0]:
            raise Broken
        self._at = found.end()
        if tell is not None:
            yield tell(found[0])
        return found[0]

    def _find(self, marks: tuple[str, ...]) -> tuple[int, str | None]:
        """Where the first of the marks begins, and which it is, of those there the longest.

        Without a mark: up to where there is none, and none can begin.
        """
        text, (any_mark, any_begin) = self._text, _patterns(marks)
        if not any_begin.search(text, self._at):
            return len(text), None
        found = any_mark.search(text, self._at)
        start = len(text) if found is None else found.start()
        begun = len(text) if self.ended else len(text) - max(_overlap(text, self._at, mark) for mark in marks)
        if begun <= start:
            return begun, None
        return start, None if found is None else found[0]

    def _behind_space(self) -> int:
        found = _SPACE.match(self._text, self._at)
        assert found is not None
        return found.end()


@lru_cache
def _patterns(marks: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What finds the first of the marks, of those that begin there the longest; and what one may begin with."""
    longest_first = "|".join(map(re.escape, sorted(marks, key=len, reverse=True)))
    return re.compile(longest_first), re.compile("|".join(re.escape(mark[0]) for mark in marks) or r"(?!)")


def _overlap(text: str, at: int, mark: str) -> int:
    """How many characters at the end of a text, of those from a place on, may be the beginning of a mark."""
    lengths = range(min(len(mark) - 1, len(text) - at), 0, -1)
    return next((length for length in lengths if text.endswith(mark[:length])), 0)
