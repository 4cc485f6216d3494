"""The one compute stream of a rank: work enqueued first runs first. Knows nothing of what it runs.

All device work of an engine goes through one stream; that order is what makes it safe to reuse a row or a slot while an
older step that still touches it is in flight.

Work has two parts: a function that enqueues, and the reader that it returns, which is called once the device is done.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Generic, NoReturn, ParamSpec, Protocol, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Reader = Callable[[], T]
"""Makes host values of what the device has finished."""


class Pending(Protocol[T_co]):
    """What work in the stream will give."""

    def result(self) -> T_co:
        """Wait for it; raises what the work raised."""


class Stopwatch(Protocol):
    """Measures how long the device works on what is enqueued between its making and `stop`."""

    def stop(self) -> None:
        """The last of it has been enqueued."""

    def nanoseconds(self) -> int:
        """To be read when the device is done."""


class Stream(Protocol):
    """A queue of device work. outlives_failures: whether work may still succeed after some has failed."""

    @property
    def outlives_failures(self) -> bool: ...

    def enqueue(self, work: Callable[P, Reader[T]], *args: P.args, **kwargs: P.kwargs) -> Pending[T]:
        """Run `work` after everything enqueued before it, and its reader after that."""

    def stopwatch(self) -> Stopwatch:
        """Starts now, as the stream counts. For use within work."""

    def close(self) -> None:
        """Drop what has not started and wait for what has."""


class ThreadStream:
    """A stream for devices whose operators run in the calling thread: one worker thread plays the device's queue."""

    outlives_failures = True

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="compute")

    def enqueue(self, work: Callable[P, Reader[T]], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See `Stream`."""
        return self._worker.submit(lambda: work(*args, **kwargs)())

    def stopwatch(self) -> "HostStopwatch":
        """See `Stream`."""
        return HostStopwatch()

    def close(self) -> None:
        """See `Stream`."""
        self._worker.shutdown(wait=True, cancel_futures=True)


class HostStopwatch:
    """The host's clock: where operators run in the calling thread it is the device's."""

    def __init__(self) -> None:
        self._started = self._stopped = time.perf_counter_ns()

    def stop(self) -> None:
        """See `Stopwatch`."""
        self._stopped = time.perf_counter_ns()

    def nanoseconds(self) -> int:
        """See `Stopwatch`."""
        return self._stopped - self._started


class CudaStream:
    """A CUDA stream: work is enqueued by the calling thread at once, and nobody waits before a result is asked for.

    A failed kernel makes the CUDA context unusable.
    """

    outlives_failures = False

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # The model was loaded in the default stream, which this one does not wait for.
        self._stream.wait_stream(torch.cuda.default_stream(device))

    def enqueue(self, work: Callable[P, Reader[T]], *args: P.args, **kwargs: P.kwargs) -> "CudaPending[T]":
        """See `Stream`. What `work` raises is raised by the result."""
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._stream):
            try:
                reader = work(*args, **kwargs)
            except Exception as error:
                reader = partial(_raise, error)
            done.record()
        return CudaPending(done, reader)

    def stopwatch(self) -> "CudaStopwatch":
        """See `Stream`."""
        return CudaStopwatch()

    def close(self) -> None:
        """See `Stream`."""
        self._stream.synchronize()


class CudaPending(Generic[T]):
    """An event, and what to read after it. May be asked by several threads."""

    def __init__(self, done: torch.cuda.Event, reader: Reader[T]) -> None:
        self._done = done
        self._read = _Once(reader)

    def result(self) -> T:
        """See `Pending`."""
        self._done.synchronize()
        return self._read()


class CudaStopwatch:
    """Events at both ends."""

    def __init__(self) -> None:
        self._started = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._stopped = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._started.record()

    def stop(self) -> None:
        """See `Stopwatch`."""
        self._stopped.record()

    def nanoseconds(self) -> int:
        """See `Stopwatch`."""
        return int(self._started.elapsed_time(self._stopped) * 1e6)


class _Once(Generic[T]):
    """A reader that reads once and then remembers, whether it was a value or an error."""

    def __init__(self, reader: Reader[T]) -> None:
        self._outcome: Future[T] = Future()
        self._reader: Reader[T] | None = reader
        self._lock = Lock()

    def __call__(self) -> T:
        with self._lock:
            reader, self._reader = self._reader, None
            if reader is not None:
                try:
                    self._outcome.set_result(reader())
                except Exception as error:
                    self._outcome.set_exception(error)
        return self._outcome.result()


def _raise(error: Exception) -> NoReturn:
    raise error


def make_stream(device: torch.device) -> Stream:
    """The stream of a device."""
    return CudaStream(device) if device.type == "cuda" else ThreadStream()
