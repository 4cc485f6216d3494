"""`/v1/responses`. Knows not how they are made."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from text_generation_router.routes.answers import Answerer
from text_generation_router.routes.asked import Asked
from text_generation_router.routes.openai.chat import ask_chat
from text_generation_router.routes.openai.responses.asked import chat_body
from text_generation_router.routes.openai.responses.schemas import ResponsesBody
from text_generation_router.routes.openai.responses.writer import ResponseWriter
from text_generation_router.routes.services import Services
from text_generation_router.streaming import EventStream


class ResponseRoutes:
    """The handler, over what it serves from."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._answerer = Answerer(services)

    def routes(self) -> list[Route]:
        """All routes of this API."""
        return [Route("/v1/responses", self.create, methods=["POST"])]

    async def create(self, request: Request) -> Response | EventStream:
        """Answer items with items."""
        return await self._answerer.respond(request, ResponsesBody, self._ask)

    def _ask(self, body: ResponsesBody) -> Asked:
        writer = ResponseWriter(body, body.model or self._services.info["model_id"])
        return ask_chat(chat_body(body), self._services, writer)
