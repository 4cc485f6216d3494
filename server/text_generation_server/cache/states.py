"""What a model keeps of its sequences between steps, as the engine sees it. Knows no layers and no particular state.

Kinds of state: paged keys and values (`paged.py`), which live in the slots of a sequence's positions; and those of a
fixed size, which live in its row, as recurrent layers and the keys and values of an encoder's output do.
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

SLOTS_A_ROW = 2048
"""For each row where slots take no memory: hosts and routers count them, so there must be some number."""


class State(Protocol):
    """The tensors of one state of a model, whose addresses never change."""

    def admit(self, rows: Tensor) -> None:
        """Forget what these rows [N] int64 held, before the first step of the sequences that begin there."""


class StateSpec(Protocol):
    """What to allocate for a state on one rank, and what may be done with it.

    bytes_per_slot, bytes_per_row: that it takes. unshared: why what it has for a prompt's beginning cannot be taken
    over by another sequence that begins so, empty where it can. rewinds: whether tokens may be taken back, as guesses
    are.
    """

    @property
    def bytes_per_slot(self) -> int: ...

    @property
    def bytes_per_row(self) -> int: ...

    @property
    def unshared(self) -> str: ...

    @property
    def rewinds(self) -> bool: ...

    def allocate(self, num_slots: int, num_rows: int, max_len: int) -> State:
        """Its tensors, for so many slots, rows, and positions of a row.

        What is in them is not defined: whoever reads must have written.
        """


def allocate(specs: Sequence[StateSpec], num_slots: int, num_rows: int, max_len: int) -> tuple[State, ...]:
    """The states of a model, in its order."""
    return tuple(spec.allocate(num_slots, num_rows, max_len) for spec in specs)


def bytes_per_slot(specs: Sequence[StateSpec]) -> int:
    """Bytes of one token in all states."""
    return sum(spec.bytes_per_slot for spec in specs)


def bytes_per_row(specs: Sequence[StateSpec]) -> int:
    """Bytes of one sequence in all states, whatever its length."""
    return sum(spec.bytes_per_row for spec in specs)


def rows_within(memory: int, bytes_per_row: int, most: int, shared: bool) -> int:
    """How many rows this memory holds, up to `most`. shared: half of it is for slots.

    >>> rows_within(1000, 100, 64, False), rows_within(1000, 100, 64, True), rows_within(1000, 0, 64, True)
    (10, 5, 64)
    """
    return min(most, max(0, memory) // (2 if shared else 1) // bytes_per_row) if bytes_per_row else most


def slots_within(memory: int, bytes_per_slot: int, num_rows: int) -> int:
    """How many slots this memory holds; where they take none, what `num_rows` rows are likely to need.

    >>> slots_within(1000, 300, 4), slots_within(1000, 0, 4), slots_within(-1, 0, 4)
    (3, 8192, 0)
    """
    if bytes_per_slot:
        return max(0, memory) // bytes_per_slot
    return num_rows * SLOTS_A_ROW if memory >= 0 else 0
