"""What one step computes, as plain host numbers: the same on every rank, cheap to send. Knows no tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from text_generation_server.cache.layout import Block
from text_generation_server.models.step import ImageInput, SeenImages


@dataclass(frozen=True, slots=True)
class Admission:
    """A sequence's first step: its row, the slots of all its positions, the place of its adapter or 0.

    source: what an encoder is to read, and a slot for each token of it; empty for models without one.
    images: the first position and the grid of each, of those too that need not be read.
    """

    row: int
    slots: Sequence[int] | NDArray[np.int64]
    adapter: int = 0
    source: tuple[int, ...] = ()
    source_slots: Sequence[int] | NDArray[np.int64] = ()
    images: tuple[tuple[int, tuple[int, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One forward over R rows and T tokens.

    rows: row of each sequence in the row table, R of them.
    query_lens: tokens computed now, a row.
    seq_lens: keys the last of them sees, a row.
    prompts: prompt tokens of a row, or None where the row's last sampled token is the one input.
    admissions: rows that are new.
    chooses: indices into `rows` of the rows that choose a token.
    drafted: guesses among the inputs of each of them; with n guesses a row chooses after each of its last n + 1 inputs.
    scored: indices into `rows` of the rows whose prompt tokens get log-probabilities, and how many positions of each.
    adapted: whether one of the rows has an adapter.
    images: of rows that are new, which are read before anything else. seen: what those rows see of images where layers
    attend to them. blocks: positions that see each other.

    Where an image stands, a prompt has the place of a feature in place of a token (`models/step.py`).
    """

    rows: tuple[int, ...]
    query_lens: tuple[int, ...]
    seq_lens: tuple[int, ...]
    prompts: tuple[tuple[int, ...] | None, ...]
    admissions: tuple[Admission, ...]
    chooses: tuple[int, ...]
    drafted: tuple[int, ...]
    scored: tuple[tuple[int, int], ...] = ()
    adapted: bool = False
    images: tuple[ImageInput, ...] = ()
    blocks: tuple[Block, ...] = ()
    seen: tuple[SeenImages, ...] = ()


@dataclass(frozen=True, slots=True)
class AllocateCache:
    """Make a cache of `num_slots` slots and a row table of `num_rows` rows of up to `max_len` positions.

    graphs: numbers of rows for which decode steps are recorded.
    """

    num_slots: int
    num_rows: int
    max_len: int
    graphs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class MeasureMemory:
    """Report how many rows fit, up to `num_rows`, and slots beside them and recorded decode steps of `graphs` rows.

    The ranks find the minimum together. all_rows: rows are `num_rows`, whatever that leaves for slots.
    """

    memory_fraction: float
    num_rows: int
    graphs: tuple[int, ...] = ()
    all_rows: bool = False


@dataclass(frozen=True, slots=True)
class Fitting:
    """The answer, of all ranks together."""

    num_slots: int
    num_rows: int


@dataclass(frozen=True, slots=True)
class RecordMore:
    """Record a size of step that was left for later."""


@dataclass(frozen=True, slots=True)
class ReserveAdapters:
    """Make the places for adapters, if they are not there; the ranks find together whether all could."""


@dataclass(frozen=True, slots=True)
class PutAdapter:
    """Let the adapter of a key be at a place, from the next step on."""

    key: int
    place: int


@dataclass(frozen=True, slots=True)
class DropAdapter:
    """Forget the adapter of a key in host memory."""

    key: int


RankCommand = StepPlan | AllocateCache | MeasureMemory | RecordMore | ReserveAdapters | PutAdapter | DropAdapter
"""What rank 0 sends to the other ranks."""
