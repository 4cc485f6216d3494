"""Understands the JSON log lines of our other programs (docs/launcher.md#log-lines). Shows nothing.

Start-up reports ride in `record.extra` of ordinary log lines:

    {"phase": "download", "done": bytes, "total": bytes}      on the way
    {"phase": "download", "path": folder, "bytes": bytes}     at its end
    {"phase": "load", "done": bytes, "total": bytes}          on the way, of this rank
    {"phase": "tune", "done": cases, "total": cases}          on the way, and so "probe" and "record"
    {"phase": "warmup", "tokens": tokens, "bytes": bytes}     at its end: the size of the cache
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from text_generation_launcher.settings import LogLevel

_LEVELS = {
    "TRACE": LogLevel.TRACE,
    "DEBUG": LogLevel.DEBUG,
    "INFO": LogLevel.INFO,
    "SUCCESS": LogLevel.INFO,
    "WARN": LogLevel.WARN,
    "WARNING": LogLevel.WARN,
    "ERROR": LogLevel.ERROR,
    "CRITICAL": LogLevel.ERROR,
}


@dataclass(frozen=True, slots=True)
class Record:
    """One log line of a child: its level, its text without the newline, its extra fields."""

    level: LogLevel
    text: str
    extra: Mapping[str, Any]

    def number(self, key: str) -> int | None:
        """An extra field, if it is a whole number."""
        value = self.extra.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    @property
    def phase(self) -> str | None:
        """The start-up phase that the line reports on."""
        phase = self.extra.get("phase")
        return phase if isinstance(phase, str) else None

    @property
    def request_id(self) -> str | None:
        """The request that the line is about."""
        request_id = self.extra.get("request_id")
        return request_id if isinstance(request_id, str) else None


def parse_record(line: str) -> Record | None:
    """The record of a stdout line; None if the line is something else."""
    try:
        whole = json.loads(line)
        record, extra = whole["record"], whole["record"].get("extra")
        level = _LEVELS[record["level"]["name"]]
        # `text` may repeat time and level, but it alone holds the traceback.
        text = record["message"] if "message" in record and not record.get("exception") else whole["text"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return Record(level, str(text).rstrip("\n"), extra if isinstance(extra, dict) else {})


def parse_event(line: str) -> Record | None:
    """The record of a line of our router, whose fields are beside its message; None if the line is something else."""
    try:
        fields = json.loads(line)
        level, text, raised = _LEVELS[fields["level"]], fields["message"], fields.get("exception")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return Record(level, f"{text}\n{raised}".rstrip() if raised else str(text), fields)
