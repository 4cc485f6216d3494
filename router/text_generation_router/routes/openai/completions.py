"""`/v1/completions`: prompts as they are. Knows nothing of how they are run."""

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
        texts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        if not texts:
            raise InvalidInput("`prompt` cannot be an empty list")
        if body.best_of not in (None, body.n or 1):
            raise InvalidInput(f"`best_of` must be `n` or left out. Given: {body.best_of}")
        max_tokens = self._style.completion_tokens if body.max_tokens is None else body.max_tokens
        prompts = [prompt_request(body, _text(text), max_tokens, body.logprobs) for text in texts]
        writer, choices = self._style.completion(body, self._services.info), 1 if body.n is None else body.n
        return Asked(writer, prompts, body.model, choices, bool(body.stream), special_tokens=True)


def _text(prompt: str | int | list[int]) -> str:
    if not isinstance(prompt, str):
        raise InvalidInput("`prompt` must be text: token ids are not supported by this version of the router")
    return prompt
