"""A child process: its own group, both outputs drained as they come, ended for certain. Does not know what it runs."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from text_generation_launcher import tether

_KEPT_LINES = 60
_CHUNK_BYTES = 1 << 16
_LONGEST_LINE_BYTES = 1 << 20
_DRAIN_SECONDS = 2.0

LineHandler = Callable[[str], None]


class Child:
    """A running process and what it said last. Made by `spawn`, on the event loop."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], stdout: LineHandler, stderr: LineHandler) -> None:
        self.name = name
        self._process = process
        self._said: deque[str] = deque(maxlen=_KEPT_LINES)
        self._last: deque[str] = deque(maxlen=_KEPT_LINES)
        self._ended = asyncio.create_task(self._run_out(_keeping(self._said, stdout), _keeping(self._last, stderr)))

    @property
    def pid(self) -> int:
        """The process id, which is also its group's."""
        return self._process.pid

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The end of what it wrote to stderr."""
        return tuple(self._last)

    @property
    def last_words(self) -> tuple[str, ...]:
        """The ends of both outputs."""
        return (*self._said, *self._last)

    @property
    def running(self) -> bool:
        """Whether the process lives or its output is still being read."""
        return not self._ended.done()

    async def wait(self) -> int:
        """Wait for its end; the exit code, or minus the number of the signal that killed it."""
        return await asyncio.shield(self._ended)

    async def stop(self, grace: float, hurry: "asyncio.Future[Any] | None" = None) -> None:
        """SIGTERM; SIGKILL to its whole group after `grace` seconds, or as soon as `hurry` is done."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)
            waited_for: set[asyncio.Future[Any]] = {self._ended} if hurry is None else {self._ended, hurry}
            await asyncio.wait(waited_for, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        if self.running:
            self._kill_group()
        await self.wait()

    def describe_end(self) -> str:
        """How it ended, for a sentence."""
        code = self._process.returncode
        if code >= 0:
            return f"{self.name} (process {self.pid}) ended with exit code {code}"
        return f"{self.name} (process {self.pid}) was killed by {signal.Signals(-code).name}"

    async def _run_out(self, stdout: LineHandler, stderr: LineHandler) -> int:
        outputs = ((self._process.stdout, stdout), (self._process.stderr, stderr))
        readers = [asyncio.create_task(_read_lines(pipe, handler)) for pipe, handler in outputs if pipe]
        code = await _exit_code(self._process)
        # What it started dies with it, and would hold the pipes open.
        self._kill_group()
        _, unfinished = await asyncio.wait(readers, timeout=_DRAIN_SECONDS)
        for reader in unfinished:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        return code

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def spawn(
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    python: str,
    stdout: LineHandler,
    stderr: LineHandler,
    folder: Path | None = None,
) -> Child:
    """Start a command in exactly this environment, in `folder` or here. Must be called on the event loop's thread."""
    process = subprocess.Popen(
        [*_tether(python), *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environment),
        cwd=folder,
        process_group=0,
    )
    return Child(name, process, stdout, stderr)


def _keeping(kept: deque[str], handler: LineHandler) -> LineHandler:
    def keep(line: str) -> None:
        kept.append(line)
        handler(line)

    return keep


def _tether(python: str) -> list[str]:
    return [python, "-I", "-S", tether.__file__, str(os.getpid())] if sys.platform == "linux" else []


async def _exit_code(process: subprocess.Popen[bytes]) -> int:
    """The event loop's own watchers wait for the pipes too in some versions, which a grandchild can hold open."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def tell(code: int) -> None:
        if not ended.done():
            ended.set_result(code)

    def wait() -> None:
        code = process.wait()
        with suppress(RuntimeError):  # the loop is gone
            loop.call_soon_threadsafe(tell, code)

    threading.Thread(target=wait, name=f"wait-{process.pid}", daemon=True).start()
    return await ended


async def _read_lines(pipe: IO[bytes], handler: LineHandler) -> None:
    """Hand every line over without its newline; a line beyond 1 MiB comes in pieces."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    pending = b""
    try:
        while chunk := await reader.read(_CHUNK_BYTES):
            *lines, pending = (pending + chunk).split(b"\n")
            if len(pending) > _LONGEST_LINE_BYTES:
                lines, pending = [*lines, pending], b""
            for line in lines:
                handler(line.decode(errors="replace"))
        if pending:
            handler(pending.decode(errors="replace"))
    finally:
        transport.close()
