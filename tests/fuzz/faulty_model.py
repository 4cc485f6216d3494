"""The mock model on a device that fails a step now and then."""

from collections.abc import Callable

from torch import Tensor

from mocks.mock_model import LogitsOf, MockModel, next_logits
from text_generation_server.models.step import StepInput

FAULTS: list[Callable[[], Exception]] = [
    lambda: RuntimeError("a kernel failed"),
    lambda: MemoryError("no memory for a step"),
    lambda: ValueError("a model with a fault"),
]


class FaultyModel(MockModel):
    """Fails the step that `fail_after` names, before it writes anything. `fired` counts the faults."""

    def __init__(self, logits: LogitsOf = next_logits) -> None:
        super().__init__(logits=logits)
        self.fired = 0
        self._left: int | None = None
        self._fault = 0

    def fail_after(self, steps: int | None, fault: int = 0) -> None:
        """Raise fault number `fault` after that many steps; None calls it off."""
        self._left, self._fault = steps, fault

    def hidden(self, step: StepInput) -> Tensor:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                self._left = None
                self.fired += 1
                raise FAULTS[self._fault]()
        return super().hidden(step)
