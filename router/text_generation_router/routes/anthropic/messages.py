"""`/v1/messages` and `/v1/messages/count_tokens`. Knows not how they are run."""

import asyncio
import json

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from text_generation_router.responses import read_json
from text_generation_router.routes.answers import Answerer
from text_generation_router.routes.anthropic.asked import chat_body
from text_generation_router.routes.anthropic.schemas import CountBody, MessagesBody
from text_generation_router.routes.anthropic.writer import MessageWriter
from text_generation_router.routes.asked import Asked
from text_generation_router.routes.openai.chat import ask_chat
from text_generation_router.routes.services import Services
from text_generation_router.streaming import EventStream


class MessageRoutes:
    """The handlers, over what they serve from."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._answerer = Answerer(services)

    def routes(self) -> list[Route]:
        """All routes of this API."""
        return [
            Route("/v1/messages", self.create, methods=["POST"]),
            Route("/v1/messages/count_tokens", self.count_tokens, methods=["POST"]),
        ]

    async def create(self, request: Request) -> Response | EventStream:
        """Answer a conversation, in Anthropic's shape."""
        return await self._answerer.respond(request, MessagesBody, self._ask)

    async def count_tokens(self, request: Request) -> Response:
        """How many tokens a conversation is."""
        body = await read_json(request, CountBody, self._services.payload_limit)
        asked = await asyncio.to_thread(self._ask, body)
        (valid,) = await self._answerer.requests(asked)
        return Response(json.dumps({"input_tokens": len(valid.input_ids)}), media_type="application/json")

    def _ask(self, body: CountBody) -> Asked:
        return ask_chat(chat_body(body), self._services, MessageWriter(body.model))
