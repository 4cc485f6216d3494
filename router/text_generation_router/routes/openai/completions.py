"""`/v1/completions`: prompts as they are. Knows nothing of how they are run."""

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
    texts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    if not texts:
        raise InvalidInput("`prompt` cannot be an empty list")
    if body.best_of not in (None, body.n or 1):
        raise InvalidInput(f"`best_of` must be `n` or left out. Given: {body.best_of}")
    max_tokens = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    prompts = [prompt_request(body, _text(text), max_tokens, body.logprobs) for text in texts]
    return Asked(body, prompts, special_tokens=True, logprobs=body.logprobs is not None)


def _text(prompt: str | int | list[int]) -> str:
    if not isinstance(prompt, str):
        raise InvalidInput("`prompt` must be text: token ids are not supported by this version of the router")
    return prompt
