"""Logging: loguru on stdout, as text or as the JSON lines of text-generation-inference's router.

Knows nothing of what is logged.
"""

import json
import logging
import sys
import traceback
from datetime import UTC
from typing import TYPE_CHECKING

from loguru import logger

if TYPE_CHECKING:
    from loguru import Message, Record

_LEVELS = {"warn": "WARNING", "off": "CRITICAL"}
_TOLD = {"SUCCESS": "INFO", "WARNING": "WARN", "CRITICAL": "ERROR"}
"""What levels are called in JSON, where it is otherwise."""

_TEXT = "<green>{time:YYYY-MM-DDTHH:mm:ss.SSSSSS}</green> <level>{level: >7}</level> {name}: {message}"
_END = "\n{exception}"


def set_up_logging(filter_expression: str, json_output: bool) -> None:
    """Log to stdout.

    filter_expression: a level, or a list such as `info,text_generation_router=debug`, whose entry for the router wins.
    json_output: one JSON object a line, with the `request_id` of lines about a request, which text has in brackets.
    """
    logger.remove()
    level = effective_level(filter_expression)
    # What variables hold, which `diagnose` would show, may be a key or a prompt.
    if json_output:
        logger.add(_write_json, level=level, format="{message}", diagnose=False)
    else:
        logger.add(sys.stdout, level=level, format=_format, diagnose=False)
    for name in ("uvicorn", "uvicorn.error", "grpc", "asyncio", "opentelemetry"):
        library = logging.getLogger(name)
        library.handlers = [_Forward()]
        library.propagate = False
        library.setLevel(logging.WARNING)


def effective_level(expression: str) -> str:
    """The router's level in a filter expression, as loguru names it; INFO if it names none."""
    general, own = "INFO", None
    for part in expression.lower().split(","):
        target, _, level = part.strip().rpartition("=")
        name = _LEVELS.get(level, level.upper())
        if name not in ("TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
            continue
        if target == "":
            general = name
        elif target == "text_generation_router":
            own = name
    return own or general


def _format(record: "Record") -> str:
    return f"{_TEXT} [{{extra[request_id]}}]{_END}" if "request_id" in record["extra"] else f"{_TEXT}{_END}"


def _write_json(message: "Message") -> None:
    """Write a record with its fields beside message and place, as TGI's router does; the traceback is our field."""
    record = message.record
    level, time = record["level"].name, record["time"].astimezone(UTC)
    told = {
        "timestamp": f"{time:%Y-%m-%dT%H:%M:%S.%f}Z",
        "level": _TOLD.get(level, level),
        "message": record["message"],
        **record["extra"],
        "target": record["name"],
        "filename": record["file"].name,
        "line_number": record["line"],
    }
    if (raised := record["exception"]) is not None and raised.type is not None:
        told["exception"] = "".join(traceback.format_exception(raised.type, raised.value, raised.traceback))
    sys.stdout.write(json.dumps(told, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


class _Forward(logging.Handler):
    """Passes the libraries' records on to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        logger.opt(exception=record.exc_info).log(record.levelname, record.getMessage())
