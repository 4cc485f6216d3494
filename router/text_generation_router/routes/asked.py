"""What a request asks for, and what its answer is written with: what the APIs that share a pipeline have in common.

Knows no API.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from text_generation_router.chat.events import Event, Message
from text_generation_router.chat.reader import PLAIN, AnswerForm
from text_generation_router.responses import ErrorForm
from text_generation_router.schemas import GenerateRequest
from text_generation_router.sse import Framing
from text_generation_router.types import FinishReason, Token

Tops = Sequence[Sequence[Token] | None]
"""Alternatives to tokens; none at all if they were not asked for."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a request: each prompt once, however many answers it gets."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class End:
    """Why an answer ended. stop: the stop sequence that did it, which is no part of the text; empty for others.

    usage: tokens of this answer and its prompt.
    """

    reason: FinishReason
    stop: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class Choice:
    """A whole answer. top_tokens: alternatives to each token, if asked for; None where they are not known."""

    message: Message
    tokens: Sequence[Token]
    top_tokens: Tops
    end: End


class Step(NamedTuple):
    """What a step adds to an answer; made for every token, and a tuple because that is made in half the time.

    events: what can be told; tokens: what was generated, which may begin a stop sequence or a call. offset: where the
    text of that begins, in characters. end: with the last step.
    """

    events: Sequence[Event]
    tokens: Sequence[Token]
    top_tokens: Tops
    offset: int
    end: End | None


class Writer(Protocol):
    """Puts the answers to one request into the JSON of an API.

    keeps_stops: whether stop sequences are part of the texts. tells_reasoning: whether what a model thinks is told
    apart from its text. errors: how they are told before the answer, and in it.
    """

    keeps_stops: bool
    tells_reasoning: bool
    errors: ErrorForm
    framing: Framing

    def whole(self, choices: Sequence[Choice], usage: Usage) -> str:
        """All answers at once."""

    def begin(self, prompt_tokens: int) -> Sequence[str]:
        """The events of a stream that come before its first step."""

    def step(self, index: int, step: Step) -> Sequence[str]:
        """The events of an answer's step."""

    def end(self, usage: Usage) -> Sequence[str]:
        """The events that come after all answers."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Generations that one request asks for.

    prompts: one a text. choices: how many answers to each; told: how many of them the client gets, the likeliest,
    None for all. model: which the client named, if any. special_tokens: whether the tokenizer puts them around the
    prompts. form: how the answers are read. echo: whether prompts are told too; scored: with log-probabilities.
    image_urls: of the images that stand where the only prompt has marks; None where they are in the texts.
    """

    writer: Writer
    prompts: Sequence[GenerateRequest]
    model: str | None
    choices: int = 1
    stream: bool = False
    special_tokens: bool = False
    form: AnswerForm = PLAIN
    told: int | None = None
    echo: bool = False
    scored: bool = False
    image_urls: Sequence[str] | None = None

    @property
    def top(self) -> int:
        """How many alternatives to each token are told."""
        return self.prompts[0].parameters.top_n_tokens or 0

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop sequences that are no part of the texts."""
        return () if self.writer.keeps_stops else self.prompts[0].parameters.stop_sequences
