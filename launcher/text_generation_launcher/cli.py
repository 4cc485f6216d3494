"""The command `text-generation-launcher`, from its first moment on. Knows nothing of options."""

import signal
from types import FrameType
from typing import Never


def main() -> None:
    """The console command. A signal ends it cleanly even while it is still being imported."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    from text_generation_launcher.command import command
    from text_generation_launcher.programs import find_programs
    from text_generation_launcher.settings import python_program, search_path

    command()(obj=find_programs(python_program(), search_path()))


def _leave(number: int, frame: FrameType | None) -> Never:
    raise SystemExit(0)
