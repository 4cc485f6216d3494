"""Answers without the stop sequence that ended them, whole and piece by piece.

Knows nothing of JSON.
"""

from collections.abc import Sequence

from text_generation_router.types import FinishReason, GeneratedText


def answer_text(final: GeneratedText, stops: Sequence[str]) -> str:
    """The text of a whole generation. Shards leave the stop sequence in it."""
    return final.text.removesuffix(ending(final, stops))


def ending(final: GeneratedText, stops: Sequence[str]) -> str:
    """The stop sequence that ended a generation, the longest if several did; empty if none."""
    if final.finish_reason is not FinishReason.STOP_SEQUENCE:
        return ""
    return max((stop for stop in stops if final.text.endswith(stop)), key=len, default="")


class Pieces:
    """The same text in pieces: what may become a stop sequence is held back until it is known."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._sent = 0
        self._held = ""

    def add(self, text: str) -> str:
        """What can be sent once `text` has been generated."""
        if not self._stops:
            self._sent += len(text)
            return text
        text = self._held + text
        ready = len(text) - max(_begun(text, stop) for stop in self._stops)
        self._held = text[ready:]
        self._sent += ready
        return text[:ready]

    def end(self, final: GeneratedText) -> str:
        """The rest of the text: with what was sent it is that of the whole answer."""
        return answer_text(final, self._stops)[self._sent :]


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of `text` may be the beginning of `stop`."""
    lengths = range(min(len(stop) - 1, len(text)), 0, -1)
    return next((length for length in lengths if text.endswith(stop[:length])), 0)
