"""Counts clients' requests: each once when it comes, and once by how it ends. Knows no routes."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

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
        raise
    except asyncio.CancelledError:
        metrics.failure[ClientGone.failure].add()
        raise
    except BaseException:
        metrics.failure[ApiError.failure].add()
        raise
    metrics.success.add()
