"""A mock model that keeps of each sequence one number in its row, and answers as `MockModel` does: from a running hash.

A row that goes on with another's number, or begins with what was there before, therefore shows in the very next token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mocks.mock_model import SEED, VOCAB_SIZE, MockModel, logits_after, mix, mixed
from text_generation_server.cache.layout import RowLayout
from text_generation_server.layers.recurrence import Answers, RecurrentPlan, ReplayedPlan
from text_generation_server.models.step import SourceInput, StepInput


class Hashes:
    """The hash of all tokens of each row so far."""

    def __init__(self, num_rows: int) -> None:
        self.of_row = torch.full((num_rows,), 7)

    def admit(self, rows: Tensor) -> None:
        self.of_row[rows] = SEED


@dataclass(frozen=True)
class HashesSpec:
    """Nothing of it can be shared, and no token taken back."""

    bytes_per_slot: int = 0
    bytes_per_row: int = 8
    unshared: str = "it is a hash"
    rewinds: bool = False

    def allocate(self, num_slots: int, num_rows: int, max_len: int) -> Hashes:
        return Hashes(num_rows)


START = 200


@dataclass(frozen=True)
class HashingEncoder:
    """Lets a row begin with the hash of its source."""

    fail_on: int | None
    start: int = START

    def __call__(self, source: SourceInput, states: Sequence[Hashes]) -> None:
        (hashes,) = states
        if self.fail_on in source.token_ids.tolist():
            raise RuntimeError("the mock device failed")
        assert sum(source.lens) == len(source.token_ids) == len(set(source.slots.tolist()))
        for row, ids in zip(source.rows, source.token_ids.split(list(source.lens)), strict=True):
            hashes.of_row[row] = mix(ids.tolist())


class RecurrentMockModel(MockModel):
    """Its hidden states are hashes."""

    def __init__(self, fail_on: int | None = None) -> None:
        super().__init__(fail_on=fail_on)
        self.states = (HashesSpec(),)

    def prepare(self, layout: RowLayout) -> RecurrentPlan:
        return RecurrentPlan.of(layout)

    def decode_plans(self, rows: Tensor, seq_lens: Tensor, block_table: Tensor) -> Sequence[RecurrentPlan]:
        return [RecurrentPlan.of_singles(rows)]

    def token_plans(self, tokens: int, block_table: Tensor) -> Sequence[ReplayedPlan]:
        return [ReplayedPlan(tokens, self.device, Answers())]

    def hidden(self, step: StepInput) -> Tensor:
        if self.fail_on in step.token_ids.tolist():
            raise RuntimeError("the mock device failed")
        (hashes,) = step.states
        found = torch.zeros(len(step.token_ids), 1, dtype=torch.int64)
        for row, first, past in step.prepared.plan.on_host():
            for place in range(first, past):
                hashes.of_row[row] = mixed(int(hashes.of_row[row]), int(step.token_ids[place]))
                found[place] = hashes.of_row[row]
        return found if step.logit_rows is None else found[step.logit_rows]

    def logits(self, hidden: Tensor, rows: Tensor | None) -> Tensor:
        wanted = hidden if rows is None else hidden[rows]
        logits = [logits_after(state) for state in wanted[:, 0].tolist()]
        return torch.tensor(logits, dtype=torch.float32).reshape(len(wanted), VOCAB_SIZE)


class SourceMockModel(RecurrentMockModel):
    """Its answers follow from the prompt, which an encoder reads, and from a start behind it."""

    def __init__(self, fail_on: int | None = None) -> None:
        super().__init__(fail_on)
        self.encoder = HashingEncoder(fail_on)
