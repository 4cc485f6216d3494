"""Logging: loguru on stdout, as text or as the JSON lines that launchers read. Knows nothing of what is logged."""

import logging
import sys
from typing import TYPE_CHECKING

from loguru import logger

if TYPE_CHECKING:
    from loguru import Record

_LEVELS = {"warn": "WARNING", "off": "CRITICAL"}
_TEXT = "<green>{time:YYYY-MM-DDTHH:mm:ss.SSSSSS}</green> <level>{level: >7}</level> {name}: {message}"
_END = "\n{exception}"


def set_up_logging(filter_expression: str, json_output: bool) -> None:
    """Log to stdout.

    filter_expression: a level, or a list such as `info,text_generation_router=debug`, whose entry for the router wins.
    json_output: one JSON object a line with `text` and `record`, the form of the shards' logs; `record.extra` has
    the `request_id` of lines about a request, which text has in brackets.
    """
    logger.remove()
    level = effective_level(filter_expression)
    # What variables hold, which `diagnose` would show, may be a key or a prompt.
    logger.add(sys.stdout, level=level, format=_format, serialize=json_output, diagnose=False)
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


class _Forward(logging.Handler):
    """Passes the libraries' records on to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        logger.opt(exception=record.exc_info).log(record.levelname, record.getMessage())
