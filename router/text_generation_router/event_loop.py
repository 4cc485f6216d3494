"""The event loop that this router runs on. Knows not what runs."""

import asyncio


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, where there is one."""
    try:
        import uvloop
    except ImportError:  # no wheel for the platform: the standard loop is slower by a third, nothing else
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
