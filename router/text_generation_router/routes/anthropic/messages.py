"""`/v1/messages` and `/v1/messages/count_tokens`. Knows not how they are run."""

import asyncio
import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from text_generation_router.responses import read_json
from text_generation_router.routes.answer_schemas import Counted
from text_generation_router.routes.answers import Answerer
from text_generation_router.routes.anthropic.asked import chat_body
from text_generation_router.routes.anthropic.schemas import CountBody, MessagesBody
from text_generation_router.routes.anthropic.writer import MessageWriter
from text_generation_router.routes.asked import Asked
from text_generation_router.routes.endpoint import EVENTS, JSON, Endpoint
from text_generation_router.routes.openai.chat import ask_chat
from text_generation_router.routes.services import Services
from text_generation_router.streaming import EventStream

EXAMPLE = {"model": "tgi", "messages": [{"role": "user", "content": "What is deep learning?"}]}


class MessageRoutes:
    """The handlers, over what they serve from."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._answerer = Answerer(services)

    def routes(self) -> list[Endpoint]:
        """All routes of this API."""
        whole: dict[str, Any] = {"body": MessagesBody, "example": EXAMPLE | {"max_tokens": 20}}
        counted: dict[str, Any] = {"body": CountBody, "example": EXAMPLE, "schema": Counted}
        return [
            Endpoint("POST", "/v1/messages", self.create, id="messages", answers=(JSON, EVENTS), **whole),
            Endpoint("POST", "/v1/messages/count_tokens", self.count_tokens, id="count_tokens", **counted),
        ]

    async def create(self, request: Request) -> Response | EventStream:
        """Answer a conversation, in the shape of Anthropic's messages."""
        return await self._answerer.respond(request, MessagesBody, self._ask)

    async def count_tokens(self, request: Request) -> Response:
        """How many tokens a conversation is, in Anthropic's shape."""
        body = await read_json(request, CountBody, self._services.payload_limit)
        asked = await asyncio.to_thread(self._ask, body)
        read = await self._services.validator.prompts.read(asked.prompts[0].inputs, 0, False, asked.image_urls)
        return Response(json.dumps({"input_tokens": len(read.ids)}), media_type=JSON)

    def _ask(self, body: CountBody) -> Asked:
        services = self._services
        writer, mark = MessageWriter(body.model), services.validator.prompts.image_mark
        return ask_chat(chat_body(body), services.template, services.dialect, writer, image_mark=mark)
