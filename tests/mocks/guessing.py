"""When guesses are verified, by other rules than what was measured: always, or by chance."""

import random
from collections.abc import Sequence as Ordered

from text_generation_server.engine.sequence import Sequence


class AlwaysGuess:
    """Satisfies `Guessing`."""

    def pays(self, sequences: Ordered[Sequence]) -> bool:
        return True

    def count(self, drafted: int, accepted: int) -> None: ...

    def note(self, rows: int, verified: bool) -> None: ...

    def pause(self) -> None: ...


class SometimesGuess(AlwaysGuess):
    """Each time as a coin falls."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def pays(self, sequences: Ordered[Sequence]) -> bool:
        return self._rng.random() < 0.5
