"""Who goes first where several requests have one prompt: the others find it in the cache. Knows no queue.

Together they would all compute it, as nobody may take over what has not been computed.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from text_generation_router.types import ValidRequest

WORTH_WAITING = 64
"""Tokens of a prompt that takes longer to compute again than it takes to wait for a step."""


@dataclass(frozen=True, slots=True)
class Turn:
    """When a request may begin: at once, or when it `comes`. passed: set when those behind it may."""

    passed: asyncio.Event | None = None
    awaited: asyncio.Event | None = None

    async def comes(self) -> None:
        """Wait for who goes first."""
        if self.awaited is not None:
            await self.awaited.wait()

    def pass_on(self) -> None:
        """The prompt is in the cache, or nobody computes it any more."""
        if self.passed is not None:
            self.passed.set()


ANY_TIME = Turn()
"""That of a request by itself."""


def turns_of(requests: Sequence[ValidRequest], shares_prefixes: bool) -> list[Turn]:
    """Of the requests with one prompt all but the first wait until it has a token."""
    first: dict[tuple[str | None, tuple[int, ...]], asyncio.Event] = {}
    turns = []
    for request in requests:
        prompt = request.adapter_id, request.input_ids
        if not shares_prefixes or len(request.input_ids) < WORTH_WAITING or request.prefill_logprobs:
            turns.append(ANY_TIME)
        elif prompt in first:
            turns.append(Turn(awaited=first[prompt]))
        else:
            first[prompt] = asyncio.Event()
            turns.append(Turn(passed=first[prompt]))
    return turns
