"""Which places of the pool of features hold what, for sequences that come and go. Host only; knows no images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from text_generation_server.errors import OutOfBlocks


@dataclass(slots=True, eq=False)
class HeldFeatures:
    """The places of some features. places: [n] int64, in their order.

    holders: sequences with positions yet to be computed that need them. ready: whether a step has succeeded that wrote
    them; until then whoever holds them has them written again, to the same places.
    """

    places: NDArray[np.int64]
    holders: int = 0
    ready: bool = False

    def let_go(self) -> None:
        """One that held them needs them no more; steps that read them are launched before any that writes others."""
        self.holders -= 1


class FeaturePlaces:
    """Features by what they were made of. Those that nobody holds stay until their places are needed, oldest first."""

    def __init__(self, num_places: int) -> None:
        self.num_places = num_places
        self._free = np.arange(num_places)
        self._known: dict[bytes, HeldFeatures] = {}

    def hold(self, digest: bytes, count: int) -> HeldFeatures:
        """Places for the features of this digest: those that have them, or free ones.

        Raises:
            OutOfBlocks: too many are held.
        """
        held = self._known.pop(digest, None) or HeldFeatures(self._take(count))
        self._known[digest] = held  # the newest
        held.holders += 1
        return held

    def _take(self, count: int) -> NDArray[np.int64]:
        spare = [(digest, held) for digest, held in self._known.items() if not held.holders]
        for digest, held in spare:
            if len(self._free) >= count:
                break
            del self._known[digest]
            self._free = np.concatenate((self._free, held.places))
        if len(self._free) < count:
            raise OutOfBlocks(
                f"{count} features of images are to be kept and {len(self._free)} of {self.num_places} places are "
                "free: wait for the requests that hold the others, or show fewer images"
            )
        taken, self._free = self._free[:count], self._free[count:]
        return taken
