"""Runs what a request asks for, and answers it whole or as a stream, in the words of its writer. Knows no API."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, aclosing
from dataclasses import replace
from typing import TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from text_generation_router.chat.events import Content
from text_generation_router.entry import Timeline, Times
from text_generation_router.errors import InvalidInput
from text_generation_router.inference import Completion
from text_generation_router.outcome import counted
from text_generation_router.responses import read_json
from text_generation_router.routes.asked import Asked, Choice, End, Step, Tops, Usage
from text_generation_router.routes.headers import STREAM, compute_headers, timing_headers
from text_generation_router.routes.reading import Reading, read_whole
from text_generation_router.routes.services import Services
from text_generation_router.routes.texts import ending
from text_generation_router.streaming import Events, EventStream, until_disconnect
from text_generation_router.types import GeneratedText, Generation, Token, ValidRequest

B = TypeVar("B", bound=BaseModel)


class Answerer:
    """Answers requests."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def respond(self, request: Request, kind: type[B], ask: Callable[[B], Asked]) -> Response | EventStream:
        """One JSON object, or a stream of events. ask: what a body asks for, which may take a while to say."""
        services = self._services
        with ExitStack() as whole:
            whole.enter_context(counted(services.metrics.requests))
            timeline = Timeline(time.monotonic())
            asked = await asyncio.to_thread(ask, await read_json(request, kind, services.payload_limit))
            if asked.stream:
                return self._stream(asked, timeline, whole.pop_all())
            return await self._whole(request, asked, timeline)

    async def _whole(self, request: Request, asked: Asked, timeline: Timeline) -> Response:
        completions = await until_disconnect(request.receive, self.complete(asked, timeline))
        usage = Usage(
            sum(completion.input_length for completion in completions[:: asked.choices]),
            sum(completion.generated_text.generated_tokens for completion in completions),
        )
        told = completions if asked.told is None else _best(completions, asked.choices, asked.told)
        body = asked.writer.whole([_choice(one, asked) for one in told], usage)
        last = max(completions, key=lambda completion: completion.timeline.batched)
        times = Times.of(last.timeline, last.generated_text.generated_tokens)
        headers = self._headers(asked) | timing_headers(times, usage.prompt_tokens, usage.completion_tokens)
        return Response(body, headers=headers, media_type="application/json")

    def _stream(self, asked: Asked, timeline: Timeline, whole: AbstractContextManager[object]) -> EventStream:
        """The answer that is sent later, and then within `whole`."""
        events, headers, writer = self._events(asked, timeline), STREAM | self._headers(asked), asked.writer
        return EventStream(events, headers, self._services.keep_alive_s, whole, writer.errors, writer.framing)

    async def complete(self, asked: Asked, timeline: Timeline) -> list[Completion]:
        """The generations, those of a prompt together."""
        services = self._services
        services.validator.check_batch(len(asked.prompts), asked.choices)
        async with services.permits.held(len(asked.prompts) * asked.choices):
            return await services.inference.complete_all(await self.requests(asked), timeline)

    async def _events(self, asked: Asked, timeline: Timeline) -> AsyncGenerator[Events, None]:
        services, writer = self._services, asked.writer
        services.validator.check_batch(len(asked.prompts), asked.choices)
        async with services.permits.held(len(asked.prompts) * asked.choices):
            requests = await self.requests(asked)
            prompt_tokens = sum(len(request.input_ids) for request in requests[:: asked.choices])
            choices = [_StreamedChoice(asked, request) for request in requests]
            begun = False
            async with aclosing(services.inference.stream_all(requests, timeline)) as generations:
                async for index, generation in generations:
                    # The beginning with the first token: until then an error has a status of its own.
                    told = [] if begun else [*writer.begin(prompt_tokens)]
                    begun = True
                    for step in choices[index].steps(generation):
                        told += writer.step(index, step)
                    yield told
        yield writer.end(Usage(prompt_tokens, sum(choice.generated_tokens for choice in choices)))

    async def requests(self, asked: Asked) -> list[ValidRequest]:
        """Every generation, those of a prompt together, which differ in their seeds alone."""
        validator, adapter = self._services.validator, await self._services.names.adapter(asked.model)
        valid = [
            await validator.validate(prompt, asked.special_tokens, adapter, asked.image_urls)
            for prompt in asked.prompts
        ]
        if asked.echo and "prefill_top_n_tokens" in validator.extensions:
            valid = [replace(request, prefill_top_n_tokens=asked.top) for request in valid]
        return [_with_seed(request, choice) for request in valid for choice in range(asked.choices)]

    def _headers(self, asked: Asked) -> dict[str, str]:
        return compute_headers(self._services.compute_type, sum(len(prompt.inputs) for prompt in asked.prompts))


class _StreamedChoice:
    """One choice of a stream, from its first step to its last. generated_tokens: known after the last."""

    def __init__(self, asked: Asked, request: ValidRequest) -> None:
        self.generated_tokens = 0
        self._asked = asked
        self._stops = asked.stops
        self._top = asked.top
        self._request = request
        self._reading = Reading(asked.form, asked.stops)
        self._echoes = asked.echo
        self._offset = 0

    def steps(self, generation: Generation) -> Sequence[Step]:
        """What a step adds: the prompt before it, if that is to be told."""
        if not self._echoes:
            return (self._step(generation),)
        self._echoes = False
        tokens, tops = _scored(self._asked, generation)
        prompt = Step([Content(self._request.inputs)], tokens, tops, 0, None)
        self._offset = sum(len(token.text) for token in tokens)
        return prompt, self._step(generation)

    def _step(self, generation: Generation) -> Step:
        final, offset, end = generation.generated_text, self._offset, None
        for token in generation.tokens:
            if not token.special:
                self._offset += len(token.text)
        if final is not None:
            self.generated_tokens = final.generated_tokens
            end = _end(final, self._stops, len(self._request.input_ids))
        top_tokens = [tied[: self._top] for tied in generation.top_tokens] if generation.top_tokens else ()
        return Step(self._reading.step(generation), generation.tokens, top_tokens, offset, end)


def _best(completions: list[Completion], size: int, told: int) -> list[Completion]:
    """Of `size` answers to each prompt as many as are told, the likeliest first."""
    each = [completions[start : start + size] for start in range(0, len(completions), size)]
    ranked = [sorted(some, key=lambda completion: completion.mean_logprob, reverse=True) for some in each]
    return [completion for some in ranked for completion in some[:told]]


def _choice(completion: Completion, asked: Asked) -> Choice:
    message = read_whole(completion, asked.form, asked.stops)
    end = _end(completion.generated_text, asked.stops, completion.input_length)
    top_tokens = [tied[: asked.top] for tied in completion.top_tokens]
    if not asked.echo:
        return Choice(message, completion.tokens, top_tokens, end)
    message.content = completion.request.inputs + message.content
    prompt, tops = _scored(asked, completion)
    tokens = [*prompt, *completion.tokens]
    return Choice(message, tokens, [*tops, *(top_tokens or [[]] * len(completion.tokens))], end)


def _scored(asked: Asked, told: Completion | Generation) -> tuple[Sequence[Token], Tops]:
    """The prompt's tokens, and the alternatives to them; None where there are none, as to the first."""
    if asked.scored and not told.prefill:
        raise InvalidInput("`echo` with `logprobs` needs a server that was started with --enable-prefill-logprobs")
    return told.prefill, [top or None for top in told.prefill_top] or [None] * len(told.prefill)


def _end(final: GeneratedText, stops: Sequence[str], prompt_tokens: int) -> End:
    return End(final.finish_reason, ending(final, stops), Usage(prompt_tokens, final.generated_tokens))


def _with_seed(request: ValidRequest, choice: int) -> ValidRequest:
    """The request for one of several answers; the first has the seed that was given."""
    seed = (request.sampling.seed + choice) % 2**64
    return request if choice == 0 else replace(request, sampling=replace(request.sampling, seed=seed))
