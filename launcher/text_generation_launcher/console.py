"""Writes what the launcher has to say: log lines as text or JSON, and a progress bar on a terminal.

Does not know where lines come from. Text goes to stdout, and why a launch failed to stderr.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TextIO

from text_generation_launcher.settings import LogLevel

_TARGET = "text_generation_launcher"
_BAR_WIDTH = 32
_CLEAR_LINE = "\r\x1b[K"


class Console:
    """One launch's output. A reader that went away is no reason to end: what it would have read is dropped."""

    def __init__(
        self, *, json_lines: bool, level: LogLevel, out: TextIO | None = None, err: TextIO | None = None
    ) -> None:
        self._json_lines = json_lines
        self._level = level
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._has_bar = not json_lines and self._out.isatty()
        self._bar = ""

    def log(self, level: LogLevel, message: str, source: str, fields: Mapping[str, object] | None = None) -> None:
        """A log line of the process `source`; fields are written in JSON only."""
        self._log(level, message, source, fields or {})

    def relayed(self, line: str, level: LogLevel, message: str, source: str) -> None:
        """A log line of the process `source`, whose JSON is as it should be: as text it is `message`."""
        if self._json_lines:
            self._line(line)
        else:
            self.log(level, message, source)

    def debug(self, message: str, source: str) -> None:
        """A log line of the process `source`, for who looks for a fault."""
        self.log(LogLevel.DEBUG, message, source)

    def info(self, message: str, **fields: object) -> None:
        """A log line of the launcher's own; fields are written in JSON only, so the message has to say it all."""
        self._log(LogLevel.INFO, message, "launcher", fields)

    def warn(self, message: str) -> None:
        """A log line of the launcher's own, about something that should be changed."""
        self._log(LogLevel.WARN, message, "launcher", {})

    def raw(self, line: str) -> None:
        """A line that its writer has already formatted."""
        self._line(line)

    def failure(self, message: str, lines: Sequence[str]) -> None:
        """Why the launch ends, and the last lines of whoever caused it; shown at every log level."""
        if self._json_lines:
            self._line(self._formatted(LogLevel.ERROR, message, "launcher", {"stderr": list(lines)}))
        self.end_progress()
        self._write(self._err, "\n".join([*(() if self._json_lines else lines), f"Error: {message}"]) + "\n")

    def progress(self, phase: str, done: int, total: int, counted: str | None = None) -> None:
        """Draw how far a phase is, in bytes or in what is counted, if a person is looking."""
        if self._has_bar and total:
            self._bar = _bar(phase, done, total, counted)
            self._write(self._out, _CLEAR_LINE + self._bar)

    def end_progress(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar = ""
            self._write(self._out, _CLEAR_LINE)

    def _log(self, level: LogLevel, message: str, source: str, fields: Mapping[str, object]) -> None:
        if self._level.shows(level):
            self._line(self._formatted(level, message, source, fields))

    def _formatted(self, level: LogLevel, message: str, source: str, fields: Mapping[str, object]) -> str:
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if not self._json_lines:
            return f"{time} {level.upper():>5} {source}: {message}"
        body = {"message": message, **fields}
        where = {"name": source}
        return json.dumps({"timestamp": time, "level": level.upper(), "fields": body, "target": _TARGET, "span": where})

    def _line(self, line: str) -> None:
        bar = self._bar
        self._write(self._out, f"{_CLEAR_LINE}{line}\n{bar}" if bar else f"{line}\n")

    def _write(self, stream: TextIO, text: str) -> None:
        try:
            stream.write(text)
            stream.flush()
        except (OSError, ValueError):
            return


def size(count: int) -> str:
    """Bytes for people."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _bar(phase: str, done: int, total: int, counted: str | None) -> str:
    filled = min(_BAR_WIDTH, _BAR_WIDTH * done // total)
    far = f"{size(done)} of {size(total)}" if counted is None else f"{done} of {total} {counted}"
    return f"{phase} [{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] {far}"
