"""A client's generation from queue to last token: several samples, and its record.

Knows neither HTTP nor how batches are made.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from loguru import logger

from text_generation_router.backend import Runs
from text_generation_router.entry import Timeline, Times
from text_generation_router.errors import IncompleteGeneration
from text_generation_router.metrics import RequestMetrics
from text_generation_router.parameters import random_seed
from text_generation_router.timelimit import TimeLimit
from text_generation_router.turns import ANY_TIME, Turn, turns_of
from text_generation_router.types import GeneratedText, Generation, Token, ValidRequest


@dataclass(slots=True)
class Completion:
    """A whole generation."""

    request: ValidRequest
    timeline: Timeline
    tokens: list[Token]
    top_tokens: list[list[Token]]
    prefill: list[Token]
    prefill_top: Sequence[list[Token]]
    generated_text: GeneratedText

    @property
    def input_length(self) -> int:
        """Tokens of the prompt."""
        return len(self.request.input_ids)

    @property
    def mean_logprob(self) -> float:
        """By which samples are compared."""
        return sum(token.logprob for token in self.tokens) / len(self.tokens)


class Inference:
    """Runs valid requests. shares_prefixes: whether what is computed of a prompt serves others that begin alike."""

    def __init__(
        self, runs: Runs, time_limit: TimeLimit, metrics: RequestMetrics, shares_prefixes: bool = False
    ) -> None:
        self._runs = runs
        self._time_limit = time_limit
        self._metrics = metrics
        self._shares_prefixes = shares_prefixes

    async def stream(
        self, request: ValidRequest, timeline: Timeline, measured: bool = True, turn: Turn = ANY_TIME
    ) -> AsyncGenerator[Generation, None]:
        """Every step; the last has `final`, with the whole text. Closing the generator cancels the request.

        measured: whether it is a client's request, not one of several samples for it. turn: when it may begin.
        """
        if measured:
            self._note_size(request)
        timeline.queued = time.monotonic()
        await turn.comes()
        try:
            with self._runs.run(request, timeline) as inbox, self._time_limit.of(request, timeline, inbox):
                while True:
                    generation = await inbox.next()
                    turn.pass_on()
                    final = generation.generated_text
                    if final is not None and measured:
                        self._record(request, final, Times.of(timeline, final.generated_tokens))
                    yield generation
                    if final is not None:
                        return
        finally:
            turn.pass_on()

    async def complete(
        self, request: ValidRequest, timeline: Timeline, measured: bool = True, turn: Turn = ANY_TIME
    ) -> Completion:
        """The whole generation at once. measured, turn: as for `stream`."""
        tokens: list[Token] = []
        top_tokens: list[list[Token]] = []
        prefill: list[Token] = []
        prefill_top: Sequence[list[Token]] = ()
        async with aclosing(self.stream(request, timeline, measured, turn)) as generations:
            async for generation in generations:
                tokens += generation.tokens
                top_tokens += generation.top_tokens
                if generation.prefill:
                    prefill, prefill_top = generation.prefill, generation.prefill_top
                if (final := generation.generated_text) is not None:
                    return Completion(request, timeline, tokens, top_tokens, prefill, prefill_top, final)
        raise IncompleteGeneration

    async def best_of(self, request: ValidRequest, timeline: Timeline, count: int) -> list[Completion]:
        """`count` independent samples, the likeliest first; in the metrics one request, whose answer that one is."""
        self._note_size(request)
        samples = [replace(request, sampling=replace(request.sampling, seed=random_seed())) for _ in range(count)]
        completions = await self.complete_all(samples, timeline, measured=False)
        completions.sort(key=lambda completion: completion.mean_logprob, reverse=True)
        best = completions[0]
        self._record(request, best.generated_text, Times.of(best.timeline, best.generated_text.generated_tokens))
        return completions

    async def complete_all(
        self, requests: Sequence[ValidRequest], timeline: Timeline, measured: bool = True
    ) -> list[Completion]:
        """Several whole generations, in order; if one fails, all do. measured: as for `stream`."""
        turns = turns_of(requests, self._shares_prefixes)
        running = [
            asyncio.ensure_future(self.complete(one, replace(timeline), measured, turn))
            for one, turn in zip(requests, turns, strict=True)
        ]
        try:
            return await asyncio.gather(*running)
        finally:
            for completion in running:
                completion.cancel()

    async def stream_all(
        self, requests: Sequence[ValidRequest], timeline: Timeline
    ) -> AsyncGenerator[tuple[int, Generation], None]:
        """Every step of several generations as they come, with the place of each; if one fails, all do."""
        if len(requests) == 1:  # most do not need to be waited for side by side
            async with aclosing(self.stream(requests[0], timeline)) as generations:
                async for generation in generations:
                    yield 0, generation
            return
        turns = turns_of(requests, self._shares_prefixes)
        arrived: asyncio.Queue[tuple[int, Generation] | Exception] = asyncio.Queue()
        running = [
            asyncio.ensure_future(self._forward(place, request, replace(timeline), turn, arrived))
            for place, (request, turn) in enumerate(zip(requests, turns, strict=True))
        ]
        try:
            unfinished = len(requests)
            while unfinished:
                event = await arrived.get()
                if isinstance(event, Exception):
                    raise event
                unfinished -= event[1].generated_text is not None
                yield event
        finally:
            for task in running:
                task.cancel()
            await asyncio.wait(running)

    async def _forward(
        self,
        place: int,
        request: ValidRequest,
        timeline: Timeline,
        turn: Turn,
        arrived: "asyncio.Queue[tuple[int, Generation] | Exception]",
    ) -> None:
        """Put a generation's steps, or why it failed, into the queue that several share."""
        try:
            async with aclosing(self.stream(request, timeline, turn=turn)) as generations:
                async for generation in generations:
                    arrived.put_nowait((place, generation))
        except Exception as error:
            arrived.put_nowait(error)

    def _note_size(self, request: ValidRequest) -> None:
        self._metrics.input_length.observe(len(request.input_ids))
        self._metrics.max_new_tokens.observe(request.max_new_tokens)

    def _record(self, request: ValidRequest, final: GeneratedText, times: Times) -> None:
        """Measure a finished generation, and log its one line."""
        metrics = self._metrics
        metrics.duration.observe(times.total)
        metrics.validation_duration.observe(times.validation)
        metrics.queue_duration.observe(times.queue)
        metrics.inference_duration.observe(times.inference)
        metrics.time_per_token.observe(times.per_token)
        metrics.note_finished(request, final)
        length, generated, reason = len(request.input_ids), final.generated_tokens, final.finish_reason.value
        fields = {"input_length": length, "generated_tokens": generated, "finish_reason": reason, "seed": final.seed}
        logger.bind(**fields, **times.fields()).info(
            "Success: {} prompt tokens, {} generated ({}), seed {}; {:.1f} ms = {:.1f} validation + {:.1f} queue + "
            "{:.1f} inference, {:.2f} ms a token",
            *fields.values(),
            *(1e3 * seconds for seconds in times.fields().values()),
        )
