"""What cloud platforms call: `/invocations` (SageMaker) and `/vertex` (Vertex AI). Knows not how answers are made."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Discriminator, Field, RootModel, Tag
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive

from text_generation_router.chat.reader import PLAIN, AnswerForm
from text_generation_router.entry import Timeline
from text_generation_router.outcome import counted
from text_generation_router.responses import read_body, read_json
from text_generation_router.routes.answer_schemas import Predictions
from text_generation_router.routes.answers import Answerer
from text_generation_router.routes.endpoint import EVENTS, JSON, Endpoint
from text_generation_router.routes.native import EXAMPLE, NativeRoutes
from text_generation_router.routes.openai.chat import ChatRoutes
from text_generation_router.routes.openai.completions import CompletionRoutes
from text_generation_router.routes.openai.schemas import ChatBody, CompletionBody
from text_generation_router.routes.reading import read_whole
from text_generation_router.routes.services import Services
from text_generation_router.schemas import Body, GenerateRequest
from text_generation_router.streaming import EventStream, until_disconnect
from text_generation_router.types import ValidRequest

Handler = Callable[[Request], Awaitable[Response | EventStream]]


class Invocation(RootModel[GenerateRequest | ChatBody | CompletionBody]):
    """Body of `/invocations`: any of those."""


def _kind(given: Any) -> str:
    return "chat" if isinstance(given, dict) and "messages" in given else "prompt"


Instance = Annotated[Annotated[GenerateRequest, Tag("prompt")] | Annotated[ChatBody, Tag("chat")], Discriminator(_kind)]


class VertexBody(Body):
    """Body of `/vertex`: prompts with their parameters, and chats."""

    instances: list[Instance] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class _Generation:
    """What an instance asks for, and how its text is read."""

    request: ValidRequest
    form: AnswerForm = PLAIN
    stops: tuple[str, ...] = ()


class CloudRoutes:
    """The handlers, over those of other APIs."""

    def __init__(
        self, services: Services, native: NativeRoutes, chats: ChatRoutes, completions: CompletionRoutes
    ) -> None:
        self._services = services
        self._answerer = Answerer(services)
        self._chats = chats
        self._by_key: dict[str, Handler] = {
            "inputs": native.compat,
            "messages": chats.create,
            "prompt": completions.create,
        }

    def routes(self) -> list[Endpoint]:
        """All routes of this kind."""
        any_of: dict[str, Any] = {"body": Invocation, "example": EXAMPLE, "answers": (JSON, EVENTS)}
        instances: dict[str, Any] = {"body": VertexBody, "example": {"instances": [EXAMPLE]}, "schema": Predictions}
        return [
            Endpoint("POST", "/invocations", self.invocations, id="sagemaker_compatibility", **any_of),
            Endpoint("POST", "/vertex", self.vertex, id="vertex_compatibility", **instances),
        ]

    async def invocations(self, request: Request) -> Response | EventStream:
        """For SageMaker: a body of `/`, or of OpenAI's chats or completions, whichever has the key first."""
        try:
            body = await read_body(request, self._services.payload_limit)
        except Exception:
            with counted(self._services.metrics.requests):
                raise
        again = Request(request.scope, _replaying(body, request.receive))
        return await self._by_key[next((key for key in self._by_key if key in _keys(body)), "inputs")](again)

    async def vertex(self, request: Request) -> Response:
        """For Vertex AI: the texts of several prompts or chats."""
        services = self._services
        with counted(services.metrics.requests):
            timeline = Timeline(time.monotonic())
            body = await read_json(request, VertexBody, services.payload_limit)
            predictions = await until_disconnect(request.receive, self._predictions(body, timeline))
            return Response(json.dumps({"predictions": predictions}, ensure_ascii=False), media_type=JSON)

    async def _predictions(self, body: VertexBody, timeline: Timeline) -> list[str]:
        async with self._services.permits.held(len(body.instances)):
            asked = [await self._generation(instance) for instance in body.instances]
            requests = [one.request for one in asked]
            completions = await self._services.inference.complete_all(requests, timeline)
        return [
            read_whole(completion, one.form, one.stops).content
            for completion, one in zip(completions, asked, strict=True)
        ]

    async def _generation(self, instance: GenerateRequest | ChatBody) -> _Generation:
        if isinstance(instance, GenerateRequest):
            # As with text-generation-inference, what is not said to be greedy is sampled here.
            sampled = {"do_sample": instance.parameters.do_sample is not False}
            request = instance.model_copy(update={"given": instance.parameters.model_copy(update=sampled)})
            return _Generation(await self._services.validator.validate(request))
        asked = await asyncio.to_thread(self._chats.ask, instance)
        return _Generation((await self._answerer.requests(asked))[0], asked.form, asked.stops)


def _keys(body: bytes) -> set[str]:
    """The keys of a JSON object; none if it is something else, which a handler then says."""
    try:
        return set(json.loads(body))
    except (ValueError, RecursionError, TypeError):
        return set()


def _replaying(body: bytes, receive: Receive) -> Receive:
    """The messages of a request whose body has been read, once more."""
    read = False

    async def again() -> Message:
        nonlocal read
        if read:
            return await receive()
        read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
