"""Generations as the events that they tell, whole and step by step. Knows neither formats nor JSON."""

from collections.abc import Sequence
from dataclasses import replace

from text_generation_router.chat.events import Event, Message, collected
from text_generation_router.chat.reader import AnswerForm
from text_generation_router.inference import Completion
from text_generation_router.routes.texts import Pieces, answer_text
from text_generation_router.types import GeneratedText, Generation, Token


class Reading:
    """One answer, from its first step to its last. stops: its stop sequences, which are no part of it."""

    def __init__(self, form: AnswerForm, stops: Sequence[str]) -> None:
        self._marks = form.marks
        self._reader = form.reader()
        self._pieces = Pieces(stops)
        self._texts: list[str] = []

    def step(self, generation: Generation) -> Sequence[Event]:
        """What a step tells."""
        tokens = generation.tokens
        text = tokens[0].text if len(tokens) == 1 and not tokens[0].special else _visible(tokens, self._marks)
        if self._marks:
            self._texts.append(text)
        final = generation.generated_text
        if final is None:
            return self._reader.feed(self._pieces.add(text))
        rest = self._pieces.end(_with_marks(final, "".join(self._texts), self._marks))
        return [*self._reader.feed(rest), *self._reader.end()]


def read_whole(completion: Completion, form: AnswerForm, stops: Sequence[str]) -> Message:
    """What a whole generation tells."""
    reader, text = form.reader(), _visible(completion.tokens, form.marks)
    final = _with_marks(completion.generated_text, text, form.marks)
    return collected([*reader.feed(answer_text(final, stops)), *reader.end()])


def _visible(tokens: Sequence[Token], marks: frozenset[str]) -> str:
    """The text of tokens without the special ones that are no marks."""
    return "".join(token.text for token in tokens if not token.special or token.text.strip() in marks)


def _with_marks(final: GeneratedText, text: str, marks: frozenset[str]) -> GeneratedText:
    """The end of a generation with the text of its tokens: shards leave all special ones out of the whole text."""
    return replace(final, text=text) if marks else final
