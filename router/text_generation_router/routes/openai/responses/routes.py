"""`/v1/responses`. Knows not how they are made."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from text_generation_router.routes.answers import Answerer
from text_generation_router.routes.asked import Asked
from text_generation_router.routes.endpoint import EVENTS, JSON, Endpoint
from text_generation_router.routes.openai.chat import ask_chat
from text_generation_router.routes.openai.responses.asked import chat_body
from text_generation_router.routes.openai.responses.schemas import ResponsesBody
from text_generation_router.routes.openai.responses.writer import ResponseWriter
from text_generation_router.routes.services import Services
from text_generation_router.streaming import EventStream

EXAMPLE = {"input": "What is deep learning?", "max_output_tokens": 20}


class ResponseRoutes:
    """The handler, over what it serves from."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._answerer = Answerer(services)

    def routes(self) -> list[Endpoint]:
        """All routes of this API."""
        known: dict[str, Any] = {"body": ResponsesBody, "example": EXAMPLE, "answers": (JSON, EVENTS)}
        return [Endpoint("POST", "/v1/responses", self.create, id="responses", **known)]

    async def create(self, request: Request) -> Response | EventStream:
        """Answer a conversation, in the shape of OpenAI's responses."""
        return await self._answerer.respond(request, ResponsesBody, self._ask)

    def _ask(self, body: ResponsesBody) -> Asked:
        services = self._services
        writer = ResponseWriter(body, body.model or services.info["model_id"])
        mark = services.validator.prompts.image_mark
        return ask_chat(chat_body(body), services.template, services.dialect, writer, image_mark=mark)
