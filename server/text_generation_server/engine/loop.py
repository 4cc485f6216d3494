"""The engine thread: calls arrive in a queue and run one after the other; nothing else ever touches the engine."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from loguru import logger

from text_generation_server.errors import ModelError

E = TypeVar("E")
T = TypeVar("T")

PAUSE_S = 0.02
"""So long after the last call nobody seems to ask for anything."""

CALLS = 32
"""Calls without such a pause after which it is made: what is left for pauses would otherwise stay undone under load."""


class EngineLoop(Generic[E]):
    """Runs calls on an engine in its own thread, first in, first out.

    use_pause: does a little of what can wait until nobody asks for anything, and says whether any of it is left.
    `failed` is set once a call has raised `ModelError`: the device or the ranks are lost and the process must end.
    """

    def __init__(self, engine: E, use_pause: Callable[[E], bool] = lambda _: False) -> None:
        self.failed = threading.Event()
        self._use_pause = use_pause
        self._engine = engine
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether calls will still be run."""
        return self._thread.is_alive() and not self.failed.is_set()

    def start(self) -> None:
        """Start taking calls."""
        self._thread.start()

    def stop(self) -> None:
        """Run what is queued, then end the thread. Calls submitted later never run."""
        self._inbox.put(None)
        self._thread.join()

    def submit(self, call: Callable[[E], T]) -> Future[T]:
        """Queue `call(engine)`; the future holds what it returns or raises."""
        future: Future[T] = Future()
        self._inbox.put(lambda: self._answer(future, call))
        return future

    def _run(self) -> None:
        calls = 0
        while (job := self._next()) is not None:
            job()
            calls += 1
            if calls % CALLS == 0:
                self._pause()

    def _next(self) -> Callable[[], None] | None:
        wait: float | None = PAUSE_S
        while True:
            try:
                return self._inbox.get(timeout=wait)
            except queue.Empty:
                wait = 0.0 if self._pause() else None

    def _pause(self) -> bool:
        if self.failed.is_set():
            return False
        try:
            return self._use_pause(self._engine)
        except BaseException as error:
            logger.exception("{}", error)
            self.failed.set()
            return False

    def _answer(self, future: Future[T], call: Callable[[E], T]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = call(self._engine)
        except BaseException as error:
            if isinstance(error, ModelError):
                self.failed.set()
            future.set_exception(error)
        else:
            future.set_result(result)
