"""Tells how long sequences of a model may get. Knows not who reads that from its files."""

from loguru import logger

from text_generation_server.specs.decoder import PositionLimit


def log_positions(limit: PositionLimit | None) -> None:
    """Tell the length, and which file and keys say so; nothing of a model without one."""
    if limit is not None:
        logger.info("Sequences of up to {} tokens: {}", limit.tokens, limit.source)
