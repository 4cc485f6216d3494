"""Counts how many sequences hold each slot, as they come and go. Knows neither sequences nor what a slot stores."""

import numpy as np
from numpy.typing import NDArray


class SlotReferences:
    """The slots that some sequences hold, shared ones once. Coming and going costs their own slots, asking nothing.

    distinct: slots that are held by at least one.
    """

    def __init__(self, num_slots: int) -> None:
        self._holders = np.zeros(num_slots, dtype=np.int32)
        self.distinct = 0

    def add(self, slots: NDArray[np.int64]) -> None:
        """Count one more holder of each of these slots, no two of which are the same."""
        holders = self._holders[slots]
        self.distinct += len(slots) - int(np.count_nonzero(holders))
        self._holders[slots] = holders + 1

    def remove(self, slots: NDArray[np.int64]) -> None:
        """Take back exactly what one `add` counted."""
        holders = self._holders[slots] - 1
        self.distinct -= len(slots) - int(np.count_nonzero(holders))
        self._holders[slots] = holders
