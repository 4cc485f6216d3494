"""Counts clients' requests: each once when it comes, and once by how it ends, of which failures are logged.

Knows no routes.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from loguru import logger

from text_generation_router.errors import ApiError, ClientGone
from text_generation_router.metrics import RequestMetrics


@contextmanager
def counted(metrics: RequestMetrics) -> Iterator[None]:
    """A request, from its arrival to the last byte of its answer: how the context is left is how the request ended."""
    metrics.count.add()
    try:
        yield
    except ApiError as error:
        metrics.failure[error.failure].add()
        # Ours, or the client's: TGI's number for what the shards have failed to do is no 5xx.
        logger.log("ERROR" if error.status == 424 or error.status >= 500 else "INFO", "{}: {}", error.failure, error)
        raise
    except asyncio.CancelledError:
        metrics.failure[ClientGone.failure].add()
        logger.info("{}: {}", ClientGone.failure, ClientGone())
        raise
    except BaseException:
        metrics.failure[ApiError.failure].add()
        raise
    metrics.success.add()
