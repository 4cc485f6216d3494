"""Logging: loguru on stdout, as text or as the JSON lines that launchers read. Knows nothing of what is logged."""

import logging
import sys

from loguru import logger

_LEVELS = {"warn": "WARNING", "off": "CRITICAL"}
_TEXT = "<green>{time:YYYY-MM-DDTHH:mm:ss.SSSSSS}</green> <level>{level: >7}</level> {name}: {message}"


def set_up_logging(filter_expression: str, json_output: bool) -> None:
    """Log to stdout.

    filter_expression: a level, or a list such as `info,text_generation_router=debug`, whose entry for the router wins.
    json_output: one JSON object a line with `text` and `record`, the form of the shards' logs.
    """
    logger.remove()
    logger.add(sys.stdout, level=effective_level(filter_expression), format=_TEXT, serialize=json_output)
    for name in ("uvicorn", "uvicorn.error", "grpc", "asyncio"):
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


class _Forward(logging.Handler):
    """Passes the libraries' records on to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        logger.opt(exception=record.exc_info).log(record.levelname, record.getMessage())
