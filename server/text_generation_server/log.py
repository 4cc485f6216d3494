"""Logging of one rank to stdout: JSON lines that launchers parse, or text for people. Knows not what is logged."""

import json
import logging
import sys
import time
from typing import TYPE_CHECKING

from loguru import logger

from text_generation_server.errors import InvalidSettings

if TYPE_CHECKING:
    from loguru import Message, Record

LEVELS = {"WARN": "WARNING"} | {
    name: name for name in ("TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL", "OFF")
}
"""Names as launchers write them, and loguru's for them."""

PROGRESS_S = 0.5
"""Seconds between two reports on the same phase."""

LONGEST_LINE = 32 * 1024
"""Bytes of a line that launchers read in one piece (docs/launcher.md#log-lines)."""

TEXT_FORMAT = "{time:YYYY-MM-DDTHH:mm:ss.SSSSSS} {level: <7} {message}"


def configure(level: str, json_output: bool, rank: int = 0) -> None:
    """Send this process's log to stdout.

    Followers repeat what rank 0 says: of theirs, only warnings and reports on a start-up phase are shown, unless DEBUG
    or TRACE is asked for.

    Raises:
        InvalidSettings: `level` is no level.
    """
    name = LEVELS.get(level.upper())
    if name is None:
        raise InvalidSettings(f"--logger-level is {level!r}, expected one of {', '.join(LEVELS)}")
    logger.remove()
    logging.basicConfig(handlers=[LibraryLog()], level=logging.WARNING, force=True)
    if name == "OFF":
        return
    logger.configure(extra={"rank": rank})
    shown = no_repetition if rank > 0 and name == "INFO" else None
    if json_output:
        logger.add(write_json, level=name, format="{message}", filter=shown, serialize=True, diagnose=False)
    else:
        text = TEXT_FORMAT if rank == 0 else TEXT_FORMAT.replace("{message}", "rank {extra[rank]}: {message}")
        logger.add(sys.stdout, level=name, format=text, filter=shown, diagnose=False)


def no_repetition(record: "Record") -> bool:
    """Whether a record says something about this rank; `phase` marks the reports that launchers add up over ranks."""
    return record["level"].no >= logging.WARNING or "phase" in record["extra"]


def write_json(message: "Message") -> None:
    """Write one serialised record as one line in one piece."""
    line = str(message)
    keep = LONGEST_LINE // 2
    while len(line.encode()) >= LONGEST_LINE:
        keep //= 2
        line = shortened(str(message), keep)
    sys.stdout.write(line)
    sys.stdout.flush()


def shortened(line: str, keep: int) -> str:
    """A serialised record with at most `keep` characters at each end of its texts."""
    entry = json.loads(line)
    record = entry["record"]
    record["exception"] = None
    entry["text"], record["message"] = (_middle_cut(text, keep) for text in (entry["text"], record["message"]))
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _middle_cut(text: str, keep: int) -> str:
    return text if len(text) <= 2 * keep else f"{text[:keep]} ... {text[-keep:]}"


class Progress:
    """Logs now and then how far a phase of the start has come; launchers draw a bar from it.

    phase: its name for launchers. text: with places for what is done and for all there is, in units of so many.
    """

    def __init__(self, phase: str, text: str, unit: float = 1.0) -> None:
        self._phase, self._text, self._unit = phase, text, unit
        self._logged_at = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Log the end, and what comes before unless that was done a moment ago."""
        if done < total and time.monotonic() - self._logged_at < PROGRESS_S:
            return
        self._logged_at = time.monotonic()
        report = logger.bind(phase=self._phase, done=done, total=total)
        report.info(self._text, done / self._unit, total / self._unit)


class LibraryLog(logging.Handler):
    """Passes what libraries log through the standard module on to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record under the name of its library."""
        level = record.levelname if record.levelname in LEVELS else record.levelno
        logger.opt(exception=record.exc_info).log(level, "{}: {}", record.name, record.getMessage())
