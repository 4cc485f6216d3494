"""What `/metrics` shows. Knows no routes."""

from text_generation_router.metrics import Metrics


class Figures:
    """Those of this process."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def text(self) -> str:
        """In Prometheus' format."""
        return self._metrics.registry.text()
