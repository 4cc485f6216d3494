"""Lines that tell how a measurement gets on: live in a terminal, one a run elsewhere. Knows no figures."""

import asyncio
import shutil
import time
from dataclasses import replace
from typing import TextIO

from text_generation_benchmark.http.client import Tally

_REFRESH_S = 0.5
_CLEAR_LINE = "\r\x1b[K"


class Progress:
    """Writes to a terminal or a file."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()
        self._what = ""
        self._tally = Tally()
        self._before = Tally()
        self._started = 0.0
        self._ticking: asyncio.Task[None] | None = None

    def begin(self, what: str, tally: Tally) -> None:
        """A run begins, whose counts will be in the tally."""
        self._what, self._tally, self._before, self._started = what, tally, replace(tally), time.perf_counter()
        if self._live:
            self._ticking = asyncio.ensure_future(self._tick())

    def end(self) -> None:
        """The run is over."""
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None
        self.line(self._state())

    def line(self, text: str) -> None:
        """Something to stay."""
        print(f"{_CLEAR_LINE}{text}" if self._live else text, file=self._out, flush=True)

    async def _tick(self) -> None:
        while True:
            width = shutil.get_terminal_size().columns - 1  # a line that wraps cannot be written over
            print(f"{_CLEAR_LINE}{self._state()[-width:]}", end="", file=self._out, flush=True)
            await asyncio.sleep(_REFRESH_S)

    def _state(self) -> str:
        now, before = self._tally, self._before
        seconds = time.perf_counter() - self._started
        done, failed = now.done - before.done, now.failed - before.failed
        under_way = now.sent - before.sent - done - failed
        rate = (now.tokens - before.tokens) / max(seconds, 1e-9)
        parts = [f"{seconds:.0f} s", f"{done} done", f"{failed} failed", f"{rate:,.0f} tokens/s"]
        return f"{self._what}: " + ", ".join(parts + ([f"{under_way} under way"] if under_way else []))
