"""`/v1/chat/completions`: conversations, made prompts by the model's chat template. Knows not how they are run."""

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from text_generation_router.chat.messages import ends_with_answer
from text_generation_router.chat.template import ChatTemplate
from text_generation_router.errors import InvalidInput, TemplateFailed
from text_generation_router.routes.answers import Answerer
from text_generation_router.routes.asked import Asked, Writer
from text_generation_router.routes.openai.asked import prompt_request
from text_generation_router.routes.openai.dialect import Dialect
from text_generation_router.routes.openai.schemas import ChatBody
from text_generation_router.routes.services import Services
from text_generation_router.streaming import EventStream

_NO_TEMPLATE = "this model has no chat template; pass one with --chat-template, or send a prompt to /v1/completions"


class ChatRoutes:
    """The handler, over what it serves from."""

    def __init__(self, services: Services, dialect: Dialect) -> None:
        self._services = services
        self._dialect = dialect
        self._answerer = Answerer(services)

    def routes(self) -> list[Route]:
        """All routes of this API."""
        return [Route("/v1/chat/completions", self.create, methods=["POST"])]

    async def create(self, request: Request) -> Response | EventStream:
        """Answer a conversation."""
        return await self._answerer.respond(request, ChatBody, self._ask)

    def _ask(self, body: ChatBody) -> Asked:
        writer = self._dialect.chat(body, self._services.info)
        return ask_chat(body, self._services.template, writer, self._dialect.chat_tokens)


def ask_chat(body: ChatBody, template: ChatTemplate | None, writer: Writer, default_tokens: int | None = None) -> Asked:
    """What a conversation asks for. May take long for a long one. Raises InvalidInput, TemplateFailed."""
    if body.top_logprobs and not body.logprobs:
        raise InvalidInput("`top_logprobs` needs `logprobs` to be true")
    limits = {body.max_tokens, body.max_completion_tokens} - {None}
    if len(limits) > 1:
        raise InvalidInput("`max_tokens` and `max_completion_tokens` differ; leave the first, which is the older name")
    request = prompt_request(body, "", next(iter(limits), default_tokens), body.top_logprobs)
    # The template has written the special tokens that the model wants.
    prompt = request.model_copy(update={"inputs": _prompt(body, template)})
    return Asked(writer, [prompt], body.model, choices=1 if body.n is None else body.n, stream=bool(body.stream))


def _prompt(body: ChatBody, template: ChatTemplate | None) -> str:
    """The conversation as the model reads it."""
    for message in body.messages:
        _check(message)
    if template is None:
        raise TemplateFailed(_NO_TEMPLATE)
    return template.render(
        body.messages,
        continue_final_message=ends_with_answer(body.messages),
        extra=body.chat_template_kwargs or {},
    )


def _check(message: Mapping[str, Any]) -> None:
    if not isinstance(message.get("role"), str):
        raise InvalidInput("`messages` has a message without a `role`, expected a text such as user")
    if message.get("tool_calls") or message["role"] in ("tool", "function"):
        raise InvalidInput("`messages` has a call of a tool; tools are not supported by this version of the router")
