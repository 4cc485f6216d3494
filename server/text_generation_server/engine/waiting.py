"""Sequences that have a row and slots, but whose adapter is not on the device yet. Knows neither batches nor steps.

They are seated in the order in which they came: none waits for what those behind it hold, and none that runs waits for
anything, so that there is no deadlock and nobody starves (docs/lora.md#more-adapters-than-places).
"""

from collections.abc import Sequence as Ordered
from concurrent.futures import FIRST_COMPLETED, wait

from text_generation_server.adapters.known import KnownAdapter
from text_generation_server.adapters.registry import AdapterRegistry
from text_generation_server.engine.sequence import Sequence
from text_generation_server.engine.types import RefusedRequest
from text_generation_server.errors import GenerationError, ModelError, StartError

Lost = list[tuple[Sequence, RefusedRequest]]
"""Sequences whose adapter cannot be had, and why."""


class WaitingSequences:
    """Those that wait, and those that have waited and may run, of which no step has been launched yet."""

    def __init__(self, adapters: AdapterRegistry) -> None:
        self._late: set[Sequence] = set()
        self._adapters = adapters
        self._queue: list[Sequence] = []
        self._lost: dict[Sequence, Exception] = {}

    def __bool__(self) -> bool:
        return bool(self._queue or self._late or self._lost)

    def add(self, fresh: Ordered[Sequence]) -> None:
        """Let those of these wait that are not seated."""
        self._queue += [s for s in fresh if not s.seated]

    def seat(self, called: Ordered[Sequence], fresh: Ordered[Sequence], patience_s: float) -> Lost:
        """Let run whoever can; returns those of the `called` whose adapter cannot be had.

        fresh: have come with this call. patience_s: how long to wait for files where nobody called can run.
        """
        self._pass(set(fresh))
        files = self._adapters.under_way
        if files and not any(s.seated or s in self._lost for s in called):
            wait(files, patience_s, return_when=FIRST_COMPLETED)
            self._pass(set(fresh))
        lost = [(s, self._lost.pop(s)) for s in called if s in self._lost]
        return [(s, RefusedRequest(s.request.id, f"request {s.request.id}: {error}")) for s, error in lost]

    def are_late(self, sequences: Ordered[Sequence]) -> bool:
        """Whether some of these have waited, so that what the next step computes of them has not been decided."""
        return not self._late.isdisjoint(sequences)

    def run(self, sequences: Ordered[Sequence]) -> None:
        """A step of these is launched."""
        self._late.difference_update(sequences)

    def _pass(self, fresh: set[Sequence]) -> None:
        self._adapters.settle()
        before: set[KnownAdapter] = set()
        placed: set[KnownAdapter] = set()  # in this pass: all that have waited for it have their turn together
        queue, self._queue = self._queue, []
        for sequence in queue:
            adapter = sequence.adapter
            if sequence.released or adapter is None:
                continue
            had_place = adapter.place
            try:
                seated = self._adapters.seat(adapter, before, joins=adapter in placed)
            except ModelError:
                raise
            except (GenerationError, StartError) as error:
                self._lost[sequence] = error
                continue
            if seated:
                sequence.sit()
                placed |= set() if had_place else {adapter}
                self._late |= {sequence} - fresh
            else:
                before.add(adapter)
                self._queue.append(sequence)
        self._late = {s for s in self._late if not s.released}
        self._lost = {s: error for s, error in self._lost.items() if not s.released}
