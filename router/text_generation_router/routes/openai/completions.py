"""`/v1/completions`: prompts as they are. Knows nothing of how they are run."""

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from text_generation_router.errors import InvalidInput
from text_generation_router.routes.answers import Answerer
from text_generation_router.routes.asked import Asked
from text_generation_router.routes.endpoint import EVENTS, JSON, Endpoint
from text_generation_router.routes.openai.asked import prompt_request
from text_generation_router.routes.openai.schemas import CompletionBody
from text_generation_router.routes.openai.style import Style
from text_generation_router.routes.services import Services
from text_generation_router.streaming import EventStream

EXAMPLE = {"prompt": "Deep learning is", "max_tokens": 20}


class CompletionRoutes:
    """The handler, over what it serves from."""

    def __init__(self, services: Services, style: Style) -> None:
        self._services = services
        self._style = style
        self._answerer = Answerer(services)

    def routes(self) -> list[Endpoint]:
        """All routes of this API."""
        known: dict[str, Any] = {"body": CompletionBody, "example": EXAMPLE, "answers": (JSON, EVENTS)}
        return [Endpoint("POST", "/v1/completions", self.create, id="completions", **known)]

    async def create(self, request: Request) -> Response | EventStream:
        """Go on with one prompt or several, in the shape of OpenAI's completions."""
        return await self._answerer.respond(request, CompletionBody, self.ask)

    def ask(self, body: CompletionBody) -> Asked:
        """What prompts ask for. Raises ApiError."""
        _check_candidates(body)
        max_tokens = self._style.completion_tokens if body.max_tokens is None else body.max_tokens
        echo, scored, n = bool(body.echo), body.logprobs is not None, 1 if body.n is None else body.n
        request = prompt_request(body, "", max_tokens, body.logprobs)
        given = self._style.penalties(request.parameters)
        parameters = given.model_copy(update={"decoder_input_details": echo and scored})
        return Asked(
            self._style.completion(body, self._services.info),
            [request.model_copy(update={"given": parameters, **_prompt(one)}) for one in _each(body.prompt)],
            body.model,
            choices=n if body.best_of is None else body.best_of,
            stream=bool(body.stream),
            special_tokens=True,
            told=None if body.best_of is None else n,
            echo=echo,
            scored=scored,
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
