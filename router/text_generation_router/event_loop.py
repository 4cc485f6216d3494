"""The event loop that this router runs on, and what would hold it up. Knows not what runs."""

import asyncio
import gc


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, where there is one."""
    try:
        import uvloop
    except ImportError:  # no wheel for the platform: the standard loop is slower by a third, nothing else
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def spare_collector() -> None:
    """Keep all that is there by now out of garbage collections, which would look through it again and again."""
    gc.collect()
    gc.freeze()
