"""How OpenAI's routes answer. Knows no request."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from text_generation_router.responses import NATIVE_ERRORS, ErrorForm
from text_generation_router.routes.asked import Writer
from text_generation_router.routes.openai.errors import OPENAI_ERRORS
from text_generation_router.routes.openai.render import Rendering
from text_generation_router.routes.openai.schemas import ChatBody, CompletionBody
from text_generation_router.routes.openai.shapes import ChatShape, CompletionShape
from text_generation_router.schemas import GenerateParameters

Info = Mapping[str, Any]
"""What `/info` answers."""


def _as_they_are(parameters: GenerateParameters) -> GenerateParameters:
    return parameters


@dataclass(frozen=True, slots=True)
class Style:
    """What answers are written with, and how many tokens are meant where a request does not say (None: all that fit).

    errors: of these routes; native_errors: of the others that go with them. penalties: what those of a request mean.
    """

    chat: Callable[[ChatBody, Info], Writer]
    completion: Callable[[CompletionBody, Info], Writer]
    errors: ErrorForm
    native_errors: ErrorForm
    chat_tokens: int | None
    completion_tokens: int
    penalties: Callable[[GenerateParameters], GenerateParameters] = _as_they_are


def fingerprint(info: Info) -> str:
    """What tells versions of the server apart."""
    return f"{info['version']}-native"


def _chat(body: ChatBody, info: Info) -> Writer:
    """Clients may call the model what they like, unless it is the name of an adapter."""
    model, logprobs = body.model or info["model_id"], bool(body.logprobs)
    return Rendering(ChatShape(), model, fingerprint(info), logprobs=logprobs, usage=body.include_usage)


def _completion(body: CompletionBody, info: Info) -> Writer:
    model, logprobs = body.model or info["model_id"], body.logprobs is not None
    return Rendering(CompletionShape(), model, fingerprint(info), logprobs=logprobs, usage=body.include_usage)


OPENAI = Style(_chat, _completion, OPENAI_ERRORS, NATIVE_ERRORS, chat_tokens=None, completion_tokens=16)
