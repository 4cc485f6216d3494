"""Routers in any order of well-formed and absurd calls on a device that fails: answers are exact, or lost cleanly."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import strategies as st

from conformance.caller import VERSIONS
from conformance.conftest import MAX_LEN, SLOTS, RunningShard
from fuzz.absurd_messages import messages
from fuzz.faulty_model import FAULTS, FaultyModel
from fuzz.routers import TEXTS, Router, Start
from fuzz.standing import assert_nothing_held
from mocks.mock_model import looping_logits, next_logits

ROUTER_SLOTS = 256
NO_TOKEN = 999
VERSION = st.sampled_from(sorted(VERSIONS))
NUMBER = st.integers(0, 5)
MOSTLY = st.sampled_from([True, True, True, False])
STARTS = st.lists(
    st.builds(
        Start,
        text=st.integers(0, len(TEXTS) - 1),
        new=st.integers(1, 8),
        chunk=NUMBER,
        own_slots=MOSTLY,
        shared=MOSTLY,
    ),
    min_size=1,
    max_size=3,
)


def absurd(version: str):
    """Requests on slots of the shard: those of a router that gives slots out twice can be anything."""
    fields = messages(VERSIONS[version][0].Request.DESCRIPTOR)
    return fields.map(lambda values: {name: value for name, value in values.items() if name != "slots"})


def prefills(version: str):
    """Starts of a batch, mostly without absurd company."""
    strangers = st.just([]) | st.lists(absurd(version), max_size=2)
    return st.tuples(st.just("prefill"), st.just(version), STARTS, st.none() | NUMBER, strangers)


def strays(version: str, method: str):
    """Calls that name other batches than the routers'."""
    values = messages(getattr(VERSIONS[version][0], f"{method}Request").DESCRIPTOR)
    return st.tuples(st.just("stray"), st.just(version), st.just(method), values)


MOVES = st.one_of(
    *[prefills(version) for version in ("v2", "v3", "v3")],
    *[st.tuples(st.just("decode"), VERSION, st.lists(NUMBER, min_size=1, max_size=3))] * 4,
    st.tuples(st.just("filter"), VERSION, NUMBER, NUMBER),
    st.tuples(st.just("clear"), VERSION, NUMBER),
    st.tuples(st.just("check_health"), VERSION),
    *[st.tuples(st.just("break_device"), NUMBER, st.integers(0, len(FAULTS) - 1))] * 2,
    *[strays(version, method) for version in VERSIONS for method in ("Decode", "FilterBatch", "Info")],
)


@contextmanager
def lent_slots(shard: RunningShard) -> Iterator[tuple[int, ...]]:
    """Slots of a fresh cache that the shard does not give out meanwhile."""
    shard.engine.resize(SLOTS, MAX_LEN)
    shard.engine.runner._states[0].keys(0).fill_(NO_TOKEN)
    blocks = shard.engine.pool.blocks
    slots = blocks.acquire(ROUTER_SLOTS)
    try:
        yield slots
    finally:
        shard.v3.clear()
        blocks.release(slots)


@pytest.mark.parametrize("budget", [3, 4096], ids=["chunks", "whole"])
@pytest.mark.parametrize(
    ("run_ahead", "speculate"), [(True, 0), (False, 0), (True, 3)], ids=["run-ahead", "no-run-ahead", "speculation"]
)
def test_any_moves_are_answered_exactly(start, explore, run_ahead, speculate, budget):
    logits_of = looping_logits if speculate else next_logits
    model = FaultyModel(logits_of)
    shard = start(model=model, run_ahead=run_ahead, speculate=speculate, max_prefill_tokens=budget)
    tokens = failures = 0

    def check(moves) -> None:
        nonlocal tokens, failures
        model.fired = 0
        with lent_slots(shard) as slots:
            router = Router(shard, model, logits_of, slots)
            for name, *arguments in moves:
                getattr(router, name)(*arguments)
            router.finish()
        assert_nothing_held(shard)
        tokens, failures = tokens + router.tokens, failures + router.failures

    explore(MOVES, check, 400)
    print(f"{tokens} tokens, {failures} failed steps")
    assert tokens > 100 and failures > 0
