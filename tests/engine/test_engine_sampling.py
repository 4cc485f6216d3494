"""Sampled requests get the same tokens and log-probabilities whatever happens around them."""

import random
from dataclasses import replace

import pytest

from text_generation_server.engine.types import PrefillCommand, Request, StoppingParams
from text_generation_server.sampling.params import SamplingParams

KINDS = (
    SamplingParams(do_sample=True),
    SamplingParams(temperature=0.8, top_k=30),
    SamplingParams(temperature=1.4, top_p=0.7, repetition_penalty=1.3),
    SamplingParams(typical_p=0.6, frequency_penalty=0.8),
    SamplingParams(do_sample=True, watermark=True),
    SamplingParams(do_sample=True, top_p=0.9, watermark=True, repetition_penalty=1.2),
    SamplingParams(repetition_penalty=1.5),
)
REQUESTS = tuple(
    Request(
        number,
        tuple(b"prompt %d" % number),
        replace(KINDS[number % len(KINDS)], seed=2**64 - 1 - number // 3),
        StoppingParams(8, ignore_eos=True),
        top_n_tokens=number % 3,
    )
    for number in range(14)
)


def answers(result) -> dict[int, list]:
    return {g.request_id: [g.tokens.ids, g.tokens.logprobs, g.top_tokens] for g in result.generations}


@pytest.fixture
def alone(make_engine) -> dict[int, list[list]]:
    """What each request answers by itself, without run-ahead, one list a step."""
    engine, found = make_engine(run_ahead=False), {}
    for request in REQUESTS:
        result = engine.prefill(PrefillCommand(request.id, (request,)))
        found[request.id] = [answers(result)[request.id]]
        while result.batch:
            result = engine.decode([request.id])
            found[request.id].append(answers(result)[request.id])
    return found


@pytest.mark.parametrize("run_ahead", [True, False], ids=["run-ahead", "no-run-ahead"])
@pytest.mark.parametrize("seed", range(8))
def test_neither_joins_nor_filters_nor_chunks_change_a_token(make_engine, alone, run_ahead, seed):
    rng = random.Random(seed)
    engine = make_engine(run_ahead=run_ahead, num_slots=1024, max_prefill_tokens=rng.choice([5, 30, 500]))
    found: dict[int, list[list]] = {}
    batches: dict[int, tuple[int, ...]] = {}
    waiting = rng.sample(REQUESTS, len(REQUESTS))
    gone: set[int] = set()
    while waiting or batches:
        if waiting and rng.random() < 0.5:
            count = rng.randint(1, 4)
            fresh, waiting = waiting[:count], waiting[count:]
            chunks = (replace(r, chunk=rng.randint(1, 9)) if rng.random() < 0.5 else r for r in fresh)
            cached = batches.popitem()[0] if batches and rng.random() < 0.5 else None
            result = engine.prefill(PrefillCommand(fresh[0].id + 100, tuple(chunks), cached))
        elif batches:
            ids = rng.sample(sorted(batches), rng.randint(1, len(batches)))
            for batch_id in ids:
                del batches[batch_id]
            result = engine.decode(ids)
        else:
            continue
        for request_id, step in answers(result).items():
            found.setdefault(request_id, []).append(step)
        if result.batch:
            batches[result.batch.id] = result.batch.request_ids
            if rng.random() < 0.2:
                kept = rng.sample(result.batch.request_ids, rng.randint(1, len(result.batch.request_ids)))
                gone |= set(result.batch.request_ids) - set(kept)
                batches[result.batch.id] = engine.filter(result.batch.id, kept).request_ids
    for request in REQUESTS:
        steps = found.get(request.id, [])
        assert steps == alone[request.id][: len(steps)]
        assert len(steps) == 8 or request.id in gone
    assert len(gone) < len(REQUESTS)
