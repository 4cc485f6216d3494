"""The native API: `/generate`, `/generate_stream`, and `/` which is either by a flag. Knows nothing of batches."""

import time
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, ExitStack, aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from text_generation_router import render
from text_generation_router.entry import Timeline, Times
from text_generation_router.inference import Completion
from text_generation_router.outcome import counted
from text_generation_router.responses import read_json
from text_generation_router.routes.answer_schemas import Generated, GeneratedList, StreamEvent
from text_generation_router.routes.endpoint import EVENTS, JSON, Endpoint
from text_generation_router.routes.headers import STREAM, compute_headers, timing_headers
from text_generation_router.routes.services import Services
from text_generation_router.schemas import GenerateRequest
from text_generation_router.streaming import Events, EventStream, until_disconnect

EXAMPLE = {"inputs": "What is deep learning?", "parameters": {"max_new_tokens": 20}}


class NativeRoutes:
    """The handlers, over what they serve from."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[Endpoint]:
        """All routes of this API."""
        known: dict[str, Any] = {"body": GenerateRequest, "example": EXAMPLE, "events": StreamEvent}
        either: dict[str, Any] = {"answers": (JSON, EVENTS), "schema": GeneratedList, **known}
        stream: dict[str, Any] = {"answers": (EVENTS,), **known}
        return [
            Endpoint("POST", "/", self.compat, id="compat_generate", **either),
            Endpoint("POST", "/generate", self.generate, id="generate", schema=Generated, **known),
            Endpoint("POST", "/generate_stream", self.generate_stream, id="generate_stream", **stream),
        ]

    async def generate(self, request: Request) -> Response:
        """Go on with a prompt: one JSON object."""
        with counted(self._services.metrics.requests):
            timeline = Timeline(time.monotonic())
            body = await self._body(request)
            return await self._whole(request, body, timeline, full_text=bool(body.parameters.return_full_text))

    async def generate_stream(self, request: Request) -> EventStream:
        """Go on with a prompt: an event for each token."""
        with ExitStack() as whole:
            whole.enter_context(counted(self._services.metrics.requests))
            timeline = Timeline(time.monotonic())
            body = await self._body(request)
            return self._stream(body, timeline, bool(body.parameters.return_full_text), whole.pop_all())

    async def compat(self, request: Request) -> Response | EventStream:
        """Go on with a prompt, in the shape of the old inference API: a list of one object, or a stream."""
        with ExitStack() as whole:
            whole.enter_context(counted(self._services.metrics.requests))
            timeline = Timeline(time.monotonic())
            body = await self._body(request)
            wish = body.parameters.return_full_text
            full_text = wish if wish is not None else self._services.full_text_by_default
            if body.stream:
                return self._stream(body, timeline, full_text, whole.pop_all())
            return await self._whole(request, body, timeline, full_text, as_list=True)

    async def _body(self, request: Request) -> GenerateRequest:
        return await read_json(request, GenerateRequest, self._services.payload_limit)

    async def _whole(
        self, request: Request, body: GenerateRequest, timeline: Timeline, full_text: bool, as_list: bool = False
    ) -> Response:
        completions = await until_disconnect(request.receive, self._complete(body, timeline))
        best, *others = completions
        prompt = body.inputs if full_text else ""
        wanted = body.parameters.details or body.parameters.decoder_input_details
        details = render.details(best, others, prompt) if wanted else None
        answer = render.generated(prompt + best.generated_text.text, details)
        generated = best.generated_text.generated_tokens
        headers = self._headers(body) | timing_headers(Times.of(best.timeline, generated), best.input_length, generated)
        return Response(f"[{answer}]" if as_list else answer, headers=headers, media_type="application/json")

    async def _complete(self, body: GenerateRequest, timeline: Timeline) -> list[Completion]:
        services = self._services
        count = services.validator.check_form(body.parameters, stream=False)
        async with services.permits.held(count):
            valid = await services.validator.validate(body)
            if count == 1:
                return [await services.inference.complete(valid, timeline)]
            return await services.inference.best_of(valid, timeline, count)

    def _stream(
        self, body: GenerateRequest, timeline: Timeline, full_text: bool, whole: AbstractContextManager[object]
    ) -> EventStream:
        """The answer that is sent later, and then within `whole`."""
        events = self._events(body, timeline, full_text)
        return EventStream(events, STREAM | self._headers(body), self._services.keep_alive_s, whole)

    async def _events(self, body: GenerateRequest, timeline: Timeline, full_text: bool) -> AsyncGenerator[Events, None]:
        services, parameters = self._services, body.parameters
        services.validator.check_form(parameters, stream=True)
        async with services.permits.held(1):
            valid = await services.validator.validate(body)
            index = 1
            async with aclosing(services.inference.stream(valid, timeline)) as generations:
                async for generation in generations:
                    text, details = None, "null"
                    if generation.generated_text is not None:
                        text = (body.inputs if full_text else "") + generation.generated_text.text
                        if parameters.details:
                            details = render.stream_details(generation.generated_text, len(valid.input_ids))
                    yield render.stream_tokens(index, generation, text, details)
                    index += len(generation.tokens)

    def _headers(self, body: GenerateRequest) -> dict[str, str]:
        return compute_headers(self._services.compute_type, len(body.inputs))
