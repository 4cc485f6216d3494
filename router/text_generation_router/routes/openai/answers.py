"""Runs what a request of OpenAI's API asks for, and answers it whole or as a stream. Knows chats from completions only
by their `Shape`.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, aclosing
from dataclasses import replace
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from text_generation_router.entry import Timeline
from text_generation_router.inference import Completion, Times
from text_generation_router.outcome import counted
from text_generation_router.responses import read_json
from text_generation_router.routes.headers import STREAM, compute_headers, timing_headers
from text_generation_router.routes.openai.asked import Asked
from text_generation_router.routes.openai.errors import DONE, OPENAI_ERRORS
from text_generation_router.routes.openai.render import Choice, Rendering, Usage
from text_generation_router.routes.openai.schemas import GenerationBody
from text_generation_router.routes.openai.shapes import Shape
from text_generation_router.routes.openai.texts import Pieces, answer_text
from text_generation_router.routes.services import Services
from text_generation_router.streaming import EventStream, until_disconnect
from text_generation_router.types import Generation, Token, ValidRequest

B = TypeVar("B", bound=GenerationBody)


class Answerer:
    """Answers requests in one shape."""

    def __init__(self, services: Services, shape: Shape) -> None:
        self._services = services
        self._shape = shape

    async def respond(self, request: Request, kind: type[B], ask: Callable[[B], Asked]) -> Response | EventStream:
        """One JSON object, or a stream of chunks. ask: what a body asks for, which may take a while to say."""
        services = self._services
        with ExitStack() as whole:
            whole.enter_context(counted(services.metrics.requests))
            timeline = Timeline(time.monotonic())
            asked = await asyncio.to_thread(ask, await read_json(request, kind, services.payload_limit))
            if asked.body.stream:
                return self._stream(asked, timeline, whole.pop_all())
            return await self._whole(request, asked, timeline)

    async def _whole(self, request: Request, asked: Asked, timeline: Timeline) -> Response:
        completions = await until_disconnect(request.receive, self._complete(asked, timeline))
        usage = Usage(
            sum(completion.input_length for completion in completions[:: asked.choices]),
            sum(completion.generated_text.generated_tokens for completion in completions),
        )
        body = self._rendering(asked).answer([_choice(one, asked.stops) for one in completions], usage)
        last = max(completions, key=lambda completion: completion.timeline.batched)
        times = Times.of(last.timeline, last.generated_text.generated_tokens)
        headers = self._headers(asked) | timing_headers(times, usage.prompt_tokens, usage.completion_tokens)
        return Response(body, headers=headers, media_type="application/json")

    def _stream(self, asked: Asked, timeline: Timeline, whole: AbstractContextManager[object]) -> EventStream:
        """The answer that is sent later, and then within `whole`."""
        headers = STREAM | self._headers(asked)
        return EventStream(
            self._events(asked, timeline), headers, self._services.keep_alive_s, whole, form=OPENAI_ERRORS
        )

    async def _complete(self, asked: Asked, timeline: Timeline) -> list[Completion]:
        services = self._services
        services.validator.check_batch(len(asked.prompts), asked.choices)
        with services.permits.held(len(asked.prompts) * asked.choices):
            return await services.inference.complete_all(await self._requests(asked), timeline)

    async def _events(self, asked: Asked, timeline: Timeline) -> AsyncGenerator[str, None]:
        services, rendering = self._services, self._rendering(asked)
        services.validator.check_batch(len(asked.prompts), asked.choices)
        with services.permits.held(len(asked.prompts) * asked.choices):
            requests = await self._requests(asked)
            choices = [_StreamedChoice(index, rendering, asked.stops) for index in range(len(requests))]
            async with aclosing(services.inference.stream_all(requests, timeline)) as generations:
                async for index, generation in generations:
                    for chunk in choices[index].chunks(generation):
                        yield chunk
        if asked.body.include_usage:
            prompt_tokens = sum(len(request.input_ids) for request in requests[:: asked.choices])
            yield rendering.usage(Usage(prompt_tokens, sum(choice.generated_tokens for choice in choices)))
        yield DONE

    async def _requests(self, asked: Asked) -> list[ValidRequest]:
        """Every generation, those of a prompt together, which differ in their seeds alone."""
        validator, name = self._services.validator, asked.body.model
        adapter = {"adapter_id": name} if name in self._services.adapters else {}
        prompts = [prompt.model_copy(update=adapter) for prompt in asked.prompts]
        valid = [await validator.validate(prompt, asked.special_tokens) for prompt in prompts]
        return [_with_seed(request, choice) for request in valid for choice in range(asked.choices)]

    def _rendering(self, asked: Asked) -> Rendering:
        """Clients may call the model what they like, unless it is the name of an adapter."""
        info = self._services.info
        model, fingerprint = asked.body.model or info["model_id"], f"{info['version']}-native"
        return Rendering(self._shape, model, fingerprint, logprobs=asked.logprobs, usage=asked.body.include_usage)

    def _headers(self, asked: Asked) -> dict[str, str]:
        return compute_headers(self._services.compute_type, sum(len(prompt.inputs) for prompt in asked.prompts))


class _StreamedChoice:
    """One choice of a stream, from its first chunk to its last. generated_tokens: known after the last."""

    def __init__(self, index: int, rendering: Rendering, stops: Sequence[str]) -> None:
        self.generated_tokens = 0
        self._index = index
        self._rendering = rendering
        self._pieces = Pieces(stops)
        self._begun = False
        self._offset = 0

    def chunks(self, generation: Generation) -> list[str]:
        """What a step adds."""
        index, final = self._index, generation.generated_text
        chunks = [] if self._begun else [self._rendering.opening(index)]
        self._begun = True
        tokens, top_tokens = _worded(generation.tokens, generation.top_tokens)
        generated = "".join(token.text for token in tokens)
        text = self._pieces.add(generated) if final is None else self._pieces.end(final)
        chunks.append(self._rendering.delta(index, text, tokens, top_tokens, self._offset))
        self._offset += len(generated)
        if final is not None:
            self.generated_tokens = final.generated_tokens
            chunks.append(self._rendering.closing(index, final.finish_reason))
        return [chunk for chunk in chunks if chunk is not None]


def _choice(completion: Completion, stops: Sequence[str]) -> Choice:
    final = completion.generated_text
    return Choice(answer_text(final, stops), *_worded(completion.tokens, completion.top_tokens), final.finish_reason)


def _worded(tokens: list[Token], top_tokens: list[list[Token]]) -> tuple[list[Token], list[list[Token]]]:
    """The tokens that are part of the text, and the alternatives to them: special ones, as an end is, are not."""
    if not any(token.special for token in tokens):
        return tokens, top_tokens
    kept = [place for place, token in enumerate(tokens) if not token.special]
    return [tokens[place] for place in kept], [top_tokens[place] for place in kept if top_tokens]


def _with_seed(request: ValidRequest, choice: int) -> ValidRequest:
    """The request for one of several answers; the first has the seed that was given."""
    seed = (request.sampling.seed + choice) % 2**64
    return request if choice == 0 else replace(request, sampling=replace(request.sampling, seed=seed))
