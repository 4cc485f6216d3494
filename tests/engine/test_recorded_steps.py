"""Which steps are replayed from which recordings, and that padding touches nothing that belongs to anyone."""

import doctest
from itertools import pairwise
from math import inf

import pytest
import torch

from mocks.mock_model import MockModel, next_logits
from mocks.plain_recorder import PlainRecorder
from text_generation_server.cache.rows import RowTable
from text_generation_server.cache.states import allocate
from text_generation_server.engine.forward import StepForward
from text_generation_server.engine.graphs import decodes as decodes_module
from text_generation_server.engine.graphs import recorded as recorded_module
from text_generation_server.engine.graphs.decodes import LARGEST, usual_sizes
from text_generation_server.engine.graphs.recorded import RecordedSteps
from text_generation_server.engine.graphs.tokens import TOKENS
from text_generation_server.engine.plan import StepPlan

ROWS, SLOTS = 7, 64
UNTOUCHED = -1.0


class CountingRecorder(PlainRecorder):
    """Notes how large each replay is."""

    def __init__(self):
        self.replays = []

    def record(self, work):
        def replay():
            result = work()
            self.replays.append(len(result))
            return result

        return replay


class Steps:
    """A mock model whose steps are recorded; row r holds slots 8 r to 8 r + 7 and a prompt of r + 1 tokens."""

    def __init__(self, sizes, longest=inf, complete=True):
        self.model, self.recorder = MockModel(), CountingRecorder()
        self.model.attention.longest = longest
        self.states, self.rows = allocate(self.model.states, SLOTS, ROWS, 8), RowTable(ROWS, 8, torch.device("cpu"))
        (self.cache,) = self.states
        self.rows.block_table[ROWS - 1] = SLOTS - 1
        self.recorded = RecordedSteps(self.model, self.states, self.rows)
        self.recorded.record(sizes, self.recorder)
        while complete and self.recorded.record_more():
            pass
        self.forward = StepForward(self.model, self.states, self.rows, self.recorded)
        self.rows.admit(range(ROWS - 1), [range(8 * row, 8 * row + 8) for row in range(ROWS - 1)])
        self.cache.layer(0).fill_(UNTOUCHED)
        self.prompts = {row: tuple(range(10 * row, 11 * row + 1)) for row in range(ROWS - 1)}
        self.run(self.prompts, self.prompts)
        self.recorder.replays.clear()

    def run(self, rows, prompts=()):
        """One step of these rows: the prompts of some, of the others the token 200 + row."""
        self.rows.last_token[: ROWS - 1] = torch.arange(200, 200 + ROWS - 1)
        given = [self.prompts[row] if row in prompts else None for row in rows]
        lens = [len(self.prompts[row]) for row in rows]
        queries = [len(prompt or (0,)) for prompt in given]
        keys = [count + (row not in prompts) for row, count in zip(rows, lens, strict=True)]
        plan = StepPlan(*map(tuple, (rows, queries, keys, given, (), range(len(rows)), [0] * len(rows))))
        return self.forward(plan).logits

    def expected(self, rows, prompts=()):
        """Logits after the rows' prompts and, but for some, the token 200 + row."""
        added = {row: () if row in prompts else (200 + row,) for row in rows}
        return torch.tensor([next_logits([*self.prompts[row], *added[row]]) for row in rows])


@pytest.mark.parametrize(
    ("rows", "replayed"), [((3,), 1), ((5, 0), 2), ((4, 1, 2), 4), ((0, 1, 2, 3), 4), ((0, 2, 1, 5, 4), TOKENS[0])]
)
def test_a_step_runs_in_the_smallest_recording_that_holds_it(rows, replayed):
    """One that no recorded number of rows holds is replayed as so many tokens."""
    steps = Steps((1, 2, 4))
    assert torch.equal(steps.run(rows), steps.expected(rows))
    assert steps.recorder.replays == [replayed]


def test_until_a_size_is_recorded_the_next_larger_serves():
    """The same answers on the way, and in the end the same recordings as all at once."""
    rows = (5, 0, 1)
    steps = Steps((1, 2, 3, 4), complete=False)
    assert torch.equal(steps.run(rows), steps.expected(rows))
    while steps.recorded.record_more():
        assert torch.equal(steps.run(rows), steps.expected(rows))
    assert torch.equal(steps.run(rows), steps.expected(rows))
    assert steps.recorder.replays[0] == 4 and steps.recorder.replays[-1] == 3
    assert not steps.recorded.record_more()
    kinds = steps.recorded.plain.kinds()
    assert [len(kind) for kind in kinds] == [len(kind) for kind in Steps((1, 2, 3, 4)).recorded.plain.kinds()]


@pytest.mark.parametrize(("rows", "prompts"), [((3, 5), (3, 5)), ((1, 4, 0, 2), (4, 2)), ((0, 1), (0,))])
def test_prompts_are_replayed_beside_rows_that_go_on(rows, prompts):
    steps = Steps((1, 2, 4))
    assert torch.equal(steps.run(rows, prompts), steps.expected(rows, prompts))
    assert steps.recorder.replays == [TOKENS[0]]


def test_a_step_is_not_replayed_that_attention_has_no_plan_for():
    steps = Steps((1, 2, 4), longest=3)
    assert torch.equal(steps.run((3,), (3,)), steps.expected((3,), (3,)))
    assert steps.recorder.replays == []
    steps.run((2, 0), (2, 0))
    assert steps.recorder.replays == [TOKENS[0]]


@pytest.mark.parametrize("prompts", [(), (4,)])
def test_padding_writes_its_own_slot_only(prompts):
    steps = Steps((4,))
    before = steps.cache.keys(0).clone()
    steps.run((2, 4, 1), prompts)
    changed = (steps.cache.keys(0) != before).flatten().nonzero().flatten().tolist()
    assert set(changed) - {SLOTS - 1} == {8 * row + len(steps.prompts[row]) for row in (2, 4, 1) if row not in prompts}


def test_nothing_is_replayed_that_was_not_recorded():
    model = MockModel()
    states, rows = allocate(model.states, SLOTS, ROWS, 8), RowTable(ROWS, 8, torch.device("cpu"))
    forward = StepForward(model, states, rows, RecordedSteps(model, states, rows))
    rows.admit([0], [(5, 6)])
    plan = StepPlan((0,), (2,), (2,), ((7, 8),), (), (0,), (0,))
    assert torch.equal(forward(plan).logits, torch.tensor([next_logits([7, 8])]))


class Asked(MockModel):
    """Notes of how many tokens each step wants something after the last layer's keys and values; None for all."""

    def __init__(self):
        super().__init__()
        self.wanted = []

    def hidden(self, step):
        self.wanted.append(None if step.logit_rows is None else len(step.logit_rows))
        return super().hidden(step)


def test_only_long_steps_leave_tokens_out_of_the_last_layer():
    """What may be recorded is computed in the same way when it is not."""
    model = Asked()
    states, rows = allocate(model.states, SLOTS, ROWS, 8), RowTable(ROWS, 8, torch.device("cpu"))
    forward = StepForward(model, states, rows, RecordedSteps(model, states, rows), whole=3)
    rows.admit([0, 1], [range(8), range(8, 16)])
    for prompt in ((7, 8, 9), (7, 8, 9, 10)):
        plan = StepPlan((0,), (len(prompt),), (len(prompt),), (prompt,), (), (0,), (0,))
        assert torch.equal(forward(plan).logits, torch.tensor([next_logits(prompt)]))
    assert model.wanted == [None, 1]


def test_usual_sizes_grow_with_the_rows():
    assert doctest.testmod(decodes_module).failed == 0
    assert doctest.testmod(recorded_module).failed == 0
    assert usual_sizes(1) == [1]
    assert usual_sizes(10 * LARGEST)[-1] == LARGEST
    large = [size for size in usual_sizes(512) if size >= 16]
    assert all(after <= 1.5 * before for before, after in pairwise(large))
