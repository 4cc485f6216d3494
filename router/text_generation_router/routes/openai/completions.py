"""`/v1/completions`: prompts as they are. Knows nothing of how they are run."""

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from text_generation_router.errors import InvalidInput
from text_generation_router.routes.openai.answers import Answerer
from text_generation_router.routes.openai.asked import Asked, prompt_request
from text_generation_router.routes.openai.schemas import CompletionBody
from text_generation_router.routes.openai.shapes import CompletionShape
from text_generation_router.routes.services import Services
from text_generation_router.streaming import EventStream

DEFAULT_MAX_TOKENS = 16
"""OpenAI's, where a request sets none."""


class CompletionRoutes:
    """The handler, over what it serves from."""

    def __init__(self, services: Services) -> None:
        self._answerer = Answerer(services, CompletionShape())

    def routes(self) -> list[Route]:
        """All routes of this API."""
        return [Route("/v1/completions", self.create, methods=["POST"])]

    async def create(self, request: Request) -> Response | EventStream:
        """See `Answerer.respond`."""
        return await self._answerer.respond(request, CompletionBody, _asked)


def _asked(body: CompletionBody) -> Asked:
    _check_candidates(body)
    max_tokens = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    echo, scored = bool(body.echo), body.logprobs is not None
    request = prompt_request(body, "", max_tokens, body.logprobs)
    parameters = request.parameters.model_copy(update={"decoder_input_details": echo and scored})
    return Asked(
        body,
        [request.model_copy(update={"given": parameters, **_prompt(one)}) for one in _each(body.prompt)],
        special_tokens=True,
        logprobs=scored,
        candidates=body.best_of,
        echo=echo,
    )


def _check_candidates(body: CompletionBody) -> None:
    n, best_of = 1 if body.n is None else body.n, body.best_of
    if best_of is not None and best_of < n:
        raise InvalidInput(f"`best_of` must be >= `n`, here {n}. Given: {best_of}")
    if best_of not in (None, n) and body.stream:
        raise InvalidInput("`best_of` must be `n` where the answer is streamed: which are best shows at the end")


def _each(prompt: str | list[str] | list[int] | list[list[int]]) -> Sequence[str | list[int]]:
    """The prompts, of which there may be several; ids without lists around them are one."""
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise InvalidInput("`prompt` cannot be an empty list")
    ids = [one for one in prompt if isinstance(one, int)]
    return [ids] if ids else [one for one in prompt if not isinstance(one, int)]


def _prompt(given: str | list[int]) -> dict[str, Any]:
    """A prompt as fields of the native request."""
    return {"inputs": given} if isinstance(given, str) else {"input_ids": given}
