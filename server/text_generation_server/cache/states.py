"""What a model keeps of its sequences between steps, as the engine sees it. Knows no layers and no particular state.

Kinds of state: paged keys and values (`paged.py`), which live in the slots of a sequence's positions; and those of a
fixed size, which live in its row, as recurrent layers and the keys and values of an encoder's output do.
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class State(Protocol):
    """The tensors of one state of a model, whose addresses never change."""

    def admit(self, rows: Tensor) -> None:
        """Forget what these rows [N] int64 held, before the first step of the sequences that begin there."""


class StateSpec(Protocol):
    """What to allocate for a state on one rank, and what may be done with it.

    bytes_per_slot, bytes_per_row: that it takes. shares_prefixes: whether what it has for a prompt's beginning is the
    same in every sequence that begins so, and can be shared. rewinds: whether tokens may be taken back, as guesses are.
    """

    @property
    def bytes_per_slot(self) -> int: ...

    @property
    def bytes_per_row(self) -> int: ...

    @property
    def shares_prefixes(self) -> bool: ...

    @property
    def rewinds(self) -> bool: ...

    def allocate(self, num_slots: int, num_rows: int) -> State:
        """Its tensors, for so many slots and rows. What is in them is not defined: whoever reads must have written."""


def allocate(specs: Sequence[StateSpec], num_slots: int, num_rows: int) -> tuple[State, ...]:
    """The states of a model, in its order."""
    return tuple(spec.allocate(num_slots, num_rows) for spec in specs)


def bytes_per_slot(specs: Sequence[StateSpec]) -> int:
    """Bytes of one token in all states."""
    return sum(spec.bytes_per_slot for spec in specs)


def bytes_per_row(specs: Sequence[StateSpec]) -> int:
    """Bytes of one sequence in all states, whatever its length."""
    return sum(spec.bytes_per_row for spec in specs)
