"""Asks again and again until the answer is yes. Knows nothing of what is asked."""

import asyncio
from collections.abc import Awaitable, Callable

_POLL_SECONDS = 0.1
_NOTICE_SECONDS = 10.0


async def wait_until(question: Callable[[], Awaitable[bool]], waiting: Callable[[], None]) -> None:
    """Return when the question is answered by True; `waiting` is called every ten seconds until then."""
    clock = asyncio.get_running_loop().time
    noticed = clock()
    while not await question():
        if clock() - noticed > _NOTICE_SECONDS:
            noticed = clock()
            waiting()
        await asyncio.sleep(_POLL_SECONDS)
