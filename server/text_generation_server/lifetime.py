"""How a serving process begins and ends: signals, failed starts and fatal errors. Knows not what is served."""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from queue import SimpleQueue
from typing import NoReturn, Protocol

from loguru import logger

from text_generation_server.errors import StartError

GRACE_S = 0.3
"""How long running calls may go on after a stop: a fatal error's answer goes out, a long step is given up."""

CLEAN, FAILED = 0, 1


class Startable(Protocol):
    """A server that opens a socket. Both methods belong to different threads, but never overlap."""

    def start(self) -> None:
        """Open the socket and serve, in other threads."""

    def stop(self, grace_s: float) -> None:
        """Close it after at most `grace_s` seconds."""


class Lifetime:
    """The end of the process, decided once, by whoever calls `end` first. `keeps`: what is closed after the server.

    The main thread only waits, so signals are obeyed at once in every phase, also while another thread loads a model.
    """

    def __init__(self) -> None:
        # Unlike an Event, a SimpleQueue may be filled from a signal handler that interrupted the same queue's use.
        self._ends: SimpleQueue[int] = SimpleQueue()
        self._guard = threading.Lock()
        self._server: Startable | None = None
        self._ended = False
        self.keeps = ExitStack()

    def end(self, code: int) -> None:
        """End the process with this exit code; later calls change nothing."""
        self._ends.put(code)

    def run(self, make_server: Callable[[], Startable]) -> int:
        """Serve what `make_server` makes until the end; returns the exit code. For the main thread.

        SIGTERM and SIGINT are clean ends. A StartError is said in one line, other errors with a traceback on stderr.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.end(CLEAN))
        threading.Thread(target=self._start, args=(make_server,), name="start", daemon=True).start()
        code = self._ends.get()
        with self._guard:
            self._ended = True
            if self._server is not None:
                self._server.stop(GRACE_S)
        self.keeps.close()
        return code

    def _start(self, make_server: Callable[[], Startable]) -> None:
        try:
            server = make_server()
            with self._guard:
                if not self._ended:
                    self._server = server
                    server.start()
        except StartError as error:
            logger.error("{}", error)
            print(f"Error: {error}", file=sys.stderr)
            self.end(FAILED)
        except BaseException as error:
            logger.error("cannot start: {}", error)
            traceback.print_exc()
            self.end(FAILED)


def leave(code: int) -> NoReturn:
    """End the process at once: threads may be in the middle of a step or of loading, which nothing can interrupt."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
