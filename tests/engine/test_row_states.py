"""A model without keys and values: what it keeps of a sequence is of a fixed size and lives in its row."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mocks.mock_model import VOCAB_SIZE, MockModel
from text_generation_server.cache.layout import RowLayout
from text_generation_server.cache.states import allocate, bytes_per_row, bytes_per_slot
from text_generation_server.engine.types import PrefillCommand, Request, StoppingParams, WarmupCommand
from text_generation_server.sampling.params import SamplingParams

NEVER_WRITTEN = 7


class Sums:
    """The sum of all tokens of each row so far."""

    def __init__(self, num_rows: int) -> None:
        self.of_row = torch.full((num_rows,), NEVER_WRITTEN)

    def admit(self, rows: Tensor) -> None:
        self.of_row[rows] = 0


@dataclass(frozen=True)
class SumsSpec:
    """Nothing of it can be shared, and no token taken back."""

    bytes_per_slot: int = 1
    bytes_per_row: int = 8
    shares_prefixes: bool = False
    rewinds: bool = False

    def allocate(self, num_slots: int, num_rows: int) -> Sums:
        return Sums(num_rows)


class SumModel(MockModel):
    """Its next token is the sum of all tokens so far."""

    def __init__(self) -> None:
        super().__init__()
        self.states = (SumsSpec(),)
        self.records = False

    def prepare(self, layout: RowLayout) -> RowLayout:
        return layout

    def hidden(self, step) -> Tensor:
        (sums,) = step.states
        found = torch.zeros(len(step.token_ids), dtype=torch.int64)
        for place, (token, row) in enumerate(zip(step.token_ids.tolist(), step.rows.tolist(), strict=True)):
            sums.of_row[row] += token
            found[place] = sums.of_row[row]
        return found if step.logit_rows is None else found[step.logit_rows]

    def logits(self, hidden: Tensor, rows: Tensor | None) -> Tensor:
        wanted = hidden if rows is None else hidden[rows]
        return torch.nn.functional.one_hot(wanted % VOCAB_SIZE, VOCAB_SIZE).float()


def answer(prompt: bytes, count: int) -> list[int]:
    """What a greedy request must answer."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(sum(tokens) % VOCAB_SIZE)
    return tokens[len(prompt) :]


def ask(engine, batch_id: int, prompts: dict[int, bytes], count: int = 4) -> dict[int, list[int]]:
    requests = tuple(
        Request(i, tuple(prompt), SamplingParams(), StoppingParams(count, ignore_eos=True))
        for i, prompt in prompts.items()
    )
    result = engine.prefill(PrefillCommand(batch_id, requests))
    found = {g.request_id: list(g.tokens.ids) for g in result.generations}
    while result.batch:
        result = engine.decode([batch_id])
        for generation in result.generations:
            found[generation.request_id] += generation.tokens.ids
    return found


def test_a_row_state_begins_anew_with_every_sequence_and_goes_on_with_its_own(make_engine):
    engine = make_engine(model=SumModel(), max_rows=2)
    prompts = {1: b"abc", 2: b"xy"}
    for _ in range(2):  # the rows are the same, what they held is not
        assert ask(engine, 0, prompts) == {i: answer(prompt, 4) for i, prompt in prompts.items()}


def test_a_prompt_in_chunks_goes_on_in_its_state(make_engine):
    engine = make_engine(model=SumModel(), max_prefill_tokens=3)
    request = Request(1, tuple(b"abcdefgh"), SamplingParams(), StoppingParams(2, ignore_eos=True), chunk=3)
    found = list(engine.prefill(PrefillCommand(0, (request,))).generations)
    while engine.batch_ids:
        found += engine.decode([0]).generations
    assert [token for generation in found for token in generation.tokens.ids] == answer(b"abcdefgh", 2)


def test_rows_take_their_memory_before_slots_are_counted(make_engine):
    sizes = []
    for row in (8, 2**14):
        model = SumModel()
        model.states = (SumsSpec(bytes_per_row=row), SumsSpec(bytes_per_slot=3, bytes_per_row=0))
        assert (bytes_per_slot(model.states), bytes_per_row(model.states)) == (4, row)
        assert [len(state.of_row) for state in allocate(model.states, 5, 3)] == [3, 3]
        sizes.append(make_engine(model=model).warmup(WarmupCommand((), max_prefill_tokens=1)).supported_tokens)
    taken = 18 * 2**14 / 4  # 16 rows, one for liveness, one that pads
    assert 0.5 * taken < sizes[0] - sizes[1] < 2 * taken
