"""Turns the signals that ask for an end into a queue on the event loop. Ends nothing itself."""

import asyncio
import signal
from types import TracebackType
from typing import Self


class StopSignals:
    """SIGINT, SIGTERM and SIGHUP while the context lasts, one `next` each; each asks for more haste than the last."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self._caught = [signal.SIGINT, signal.SIGTERM]
        # Under nohup it is ignored, and should stay so.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            self._caught.append(signal.SIGHUP)

    def __enter__(self) -> Self:
        for number in self._caught:
            asyncio.get_running_loop().add_signal_handler(number, self._queue.put_nowait, number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in self._caught:
            asyncio.get_running_loop().remove_signal_handler(number)

    def next(self) -> "asyncio.Task[signal.Signals]":
        """Done at the next signal."""
        return asyncio.create_task(self._queue.get())
