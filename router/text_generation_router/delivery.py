"""A step's tokens on their way to those who read them. Knows neither queue nor batches."""

import time
from collections import Counter
from collections.abc import Mapping
from functools import partial

from loguru import logger

from text_generation_router.entry import Timeline, Times
from text_generation_router.errors import GenerationFailed
from text_generation_router.metrics import Metrics
from text_generation_router.types import GeneratedText, StepAnswer
from text_generation_router.under_way import Call


def deliver(call: Call, answer: StepAnswer, metrics: Metrics) -> None:
    """Hand every request its tokens. Never waits: a slow reader delays nobody."""
    now, made = time.monotonic(), 0
    since: Counter[float] = Counter()  # nearly all had their last token together, and as many at once
    accepted: Counter[int] = Counter()
    for generation in answer.generations():
        entry = call.members.get(generation.request_id)
        if entry is None:
            continue
        if generation.failure is not None:
            logger.error(f"A request failed alone: {generation.failure}")
            entry.push(GenerationFailed(generation.failure))
            continue
        count = len(generation.tokens)
        made += count
        accepted[count] += 1
        timeline = entry.timeline
        if timeline.last_token:
            since[timeline.last_token] += 1
        else:
            metrics.requests.time_to_first_token.observe(now - timeline.started)
        timeline.last_token = now
        final = generation.generated_text
        if final is None:
            if entry.resumable:
                entry.generated_ids += [token.id for token in generation.tokens]
        elif generation.request_id in call.paused:
            generation.generated_text = None
        else:
            entry.trace.finished(final, partial(_times, timeline, final))
        entry.push(generation)
    metrics.note_tokens(made, accepted, [(now - last, times) for last, times in since.items()])


def _times(timeline: Timeline, final: GeneratedText) -> Mapping[str, float]:
    return Times.of(timeline, final.generated_tokens).fields()
