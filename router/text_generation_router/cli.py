"""The command `text-generation-router`: options, logging, and the outcome as an exit code. Knows nothing of serving."""

import asyncio
import signal
import sys

from loguru import logger

from text_generation_router.errors import StartError
from text_generation_router.event_loop import new_event_loop
from text_generation_router.log import set_up_logging
from text_generation_router.settings import Settings, settings_of_command


def main() -> int:
    """Serve until told to stop. 0: stopped as asked; 1: could not start, or a shard was lost; 2: unknown flags."""
    try:
        settings = settings_of_command(sys.argv[1:])
    except StartError as error:
        print(f"text-generation-router: {error}", file=sys.stderr)
        return 1
    set_up_logging(settings.log_level, settings.json_output)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(_serve_until_signal(settings))
    except StartError as error:
        logger.error(str(error))
        return 1


async def _serve_until_signal(settings: Settings) -> int:
    from text_generation_router.serve import serve  # after the options, so that --help and their errors are instant

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return await serve(settings, stop)
