"""A model without keys and values: what it keeps of a sequence is of a fixed size and lives in its row.

That rows come, go and are launched ahead in any order is in `test_engine_schedules.py`.
"""

import doctest
import json

import pytest
import torch

from mocks.mock_model import VOCAB_SIZE, greedy_continuation
from mocks.recurrent_model import HashesSpec, RecurrentMockModel
from text_generation_server.cache import states as states_module
from text_generation_server.cache.states import allocate, bytes_per_row, bytes_per_slot
from text_generation_server.distributed.group import SingleRank
from text_generation_server.engine.types import PrefillCommand, Request, StoppingParams, WarmupCommand
from text_generation_server.engine.warmup import LONGEST_UNSAID
from text_generation_server.errors import NotEnoughMemory
from text_generation_server.models.loading import ModelOptions, load_model
from text_generation_server.sampling.params import SamplingParams


def test_a_prompt_in_chunks_goes_on_in_its_state(make_engine):
    engine = make_engine(model=RecurrentMockModel(), max_prefill_tokens=3)
    request = Request(1, tuple(b"abcdefgh"), SamplingParams(), StoppingParams(2, ignore_eos=True), chunk=3)
    found = list(engine.prefill(PrefillCommand(0, (request,))).generations)
    while engine.batch_ids:
        found += engine.decode([0]).generations
    tokens = [token for generation in found for token in generation.tokens.ids]
    assert tokens == greedy_continuation(b"abcdefgh", 2, ignore_eos=True)


def with_states(*specs):
    model = RecurrentMockModel()
    model.states = specs
    return model


def test_rows_take_their_memory_before_slots_are_counted(make_engine):
    sizes = []
    for row in (8, 2**14):
        model = with_states(HashesSpec(bytes_per_row=row), HashesSpec(bytes_per_slot=4, bytes_per_row=0))
        assert (bytes_per_slot(model.states), bytes_per_row(model.states)) == (4, row)
        assert [len(state.of_row) for state in allocate(model.states, 5, 3, 4)] == [3, 3]
        sizes.append(make_engine(model=model).warmup(WarmupCommand((), max_prefill_tokens=1)).supported_tokens)
    taken = 18 * 2**14 / 4  # 16 rows, one for liveness, one that pads
    assert 0.5 * taken < sizes[0] - sizes[1] < 2 * taken


def test_rows_are_what_memory_allows_or_what_was_asked_for(make_engine):
    """Half of it where slots take some too; what was asked for does not fit in silence."""
    row = 2**16
    rows = {}
    for slot in (0, 4):
        model = with_states(HashesSpec(bytes_per_row=row), HashesSpec(bytes_per_slot=slot, bytes_per_row=0))
        engine = make_engine(model=model, max_rows=2**14, graphs=(1, 2))
        result = engine.warmup(WarmupCommand((), max_prefill_tokens=1))
        rows[slot] = result.max_rows
        assert len(engine.pool.rows) == result.max_rows and 0 < result.max_rows < 2**14
    assert 1.2 * rows[4] < rows[0] < 3 * rows[4]
    with pytest.raises(NotEnoughMemory, match=r"beside 16384 rows of 0.1 MiB.* lower MAX_BATCH_SIZE"):
        make_engine(model=model, max_rows=2**14, all_rows=True).warmup(WarmupCommand((), max_prefill_tokens=1))


def test_slots_that_take_no_memory_are_as_many_as_rows_may_need(make_engine):
    assert doctest.testmod(states_module).failed == 0
    result = make_engine(model=RecurrentMockModel()).warmup(WarmupCommand((), max_prefill_tokens=1))
    assert result.supported_tokens == 17 * states_module.SLOTS_A_ROW
    assert result.max_total_tokens == LONGEST_UNSAID < result.supported_tokens


def test_rows_that_do_not_fit_are_told_of(make_engine):
    engine = make_engine(model=with_states(HashesSpec(bytes_per_row=2**50)))
    with pytest.raises(NotEnoughMemory, match=r"fits 0 tokens .* beside 0 rows of 1073741824.0 MiB"):
        engine.warmup(WarmupCommand((), max_prefill_tokens=1))


MAMBA = {"model_type": "mamba", "vocab_size": VOCAB_SIZE, "hidden_size": 16, "num_hidden_layers": 2}
MAMBA2 = {**MAMBA, "model_type": "mamba2", "num_heads": 4, "head_dim": 8, "n_groups": 2}
T5 = {
    "model_type": "t5", "vocab_size": VOCAB_SIZE, "d_model": 16, "d_ff": 24, "d_kv": 4, "num_heads": 3, "num_layers": 2,
}  # fmt: skip


@pytest.mark.parametrize("config", [MAMBA, MAMBA2, T5], ids=lambda config: config["model_type"])
def test_other_states_are_replayed(make_engine, tmp_path, monkeypatch, config):
    """Every step of them, with prompts or without; other rows share a recording each time, and some are filled up."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    options = ModelOptions(torch.float32, torch.device("cpu"), random_weights=True)
    model = load_model(tmp_path, options, SingleRank(), lambda _done, _total: None)
    plain = joined_answers(make_engine(model=model))
    monkeypatch.setattr(type(model), "prepare", lambda *_: pytest.fail("a step was not replayed"))
    replayed = joined_answers(make_engine(model=model, graphs=(2, 4)))
    assert plain == replayed and [*map(len, plain.values())] == [4, 5, 6, 4]


def joined_answers(engine):
    """Tokens of three requests, and of one that joins them a step later."""
    stopping = [StoppingParams(new, ignore_eos=True) for new in (4, 5, 6, 4)]
    first, second, third, late = (Request(i, (65 + i,) * 3, SamplingParams(), stop) for i, stop in enumerate(stopping))
    results = [engine.prefill(PrefillCommand(1, (first, second, third))), engine.decode([1])]
    results.append(engine.prefill(PrefillCommand(2, (late,), cached_batch_id=1)))
    while engine.batch_ids:
        results.append(engine.decode(engine.batch_ids))
    tokens = {}
    for generation in (each for result in results for each in result.generations):
        tokens.setdefault(generation.request_id, []).extend(generation.tokens.ids)
    return tokens
