"""Sampled requests get the same tokens and log-probabilities whatever happens around them; greedy ones with penalties,
biases, more ends and a least length those that a loop finds which knows no engine.
"""

import random
from dataclasses import replace

import pytest

from mocks.mock_model import EOS, next_logits
from text_generation_server.engine.types import FinishReason, PrefillCommand, Request, StoppingParams
from text_generation_server.errors import InvalidRequest
from text_generation_server.sampling.params import SamplingParams

KINDS = (
    SamplingParams(do_sample=True),
    SamplingParams(temperature=0.8, top_k=30),
    SamplingParams(temperature=1.4, top_p=0.7, repetition_penalty=1.3),
    SamplingParams(typical_p=0.6, frequency_penalty=0.8),
    SamplingParams(do_sample=True, watermark=True),
    SamplingParams(do_sample=True, top_p=0.9, watermark=True, repetition_penalty=1.2),
    SamplingParams(repetition_penalty=1.5),
    SamplingParams(do_sample=True, presence_penalty=1.2, count_penalty=-0.4),
    SamplingParams(repetition_penalty=1.3, count_penalty=0.7, logit_bias=((7, 3.0), (250, -100.0))),
    SamplingParams(temperature=1.3, min_p=0.4),
)
REQUESTS = tuple(
    Request(
        number,
        tuple(b"prompt %d" % number),
        replace(KINDS[number % len(KINDS)], seed=2**64 - 1 - number // 3),
        StoppingParams(8, ignore_eos=True, stop_token_ids=(40 + number,), min_new_tokens=8),
        top_n_tokens=number % 3,
    )
    for number in range(20)
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
@pytest.mark.parametrize("seed", range(5))
def test_neither_joins_nor_filters_nor_chunks_change_a_token(make_engine, alone, run_ahead, seed):
    rng = random.Random(seed)
    engine = make_engine(
        run_ahead=run_ahead, num_slots=1024, max_rows=len(REQUESTS), max_prefill_tokens=rng.choice([5, 30, 500])
    )
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


def loop(prompt: bytes, sampling: SamplingParams, stopping: StoppingParams) -> list[int]:
    """What a request must answer, one token after the other."""
    ends = {*stopping.stop_token_ids, *([] if stopping.ignore_eos else [EOS])}
    answer: list[int] = []
    while len(answer) < stopping.max_new_tokens and not (answer and answer[-1] in ends):
        scores = next_logits([*prompt, *answer])
        for token, bias in sampling.logit_bias:
            scores[token] += bias
        for token in set(answer):
            scores[token] -= sampling.presence_penalty + answer.count(token) * sampling.count_penalty
        allowed = [t for t in range(len(scores)) if len(answer) >= stopping.min_new_tokens or t not in ends]
        answer.append(max(allowed, key=scores.__getitem__))
    return answer


LOOPED = (
    (SamplingParams(presence_penalty=1.5), StoppingParams(24, ignore_eos=True)),
    (SamplingParams(count_penalty=0.5), StoppingParams(24, ignore_eos=True)),
    (SamplingParams(presence_penalty=-2.0, count_penalty=1.0), StoppingParams(24)),
    (SamplingParams(logit_bias=tuple((token, 7.0) for token in (1, 2, 3))), StoppingParams(24)),
    (SamplingParams(logit_bias=((EOS, 100.0),)), StoppingParams(24, min_new_tokens=9)),
    (SamplingParams(), StoppingParams(24, min_new_tokens=24)),
    (SamplingParams(), StoppingParams(24, stop_token_ids=tuple(range(0, 200, 9)), min_new_tokens=3)),
    (SamplingParams(), StoppingParams(24, ignore_eos=True, stop_token_ids=tuple(range(5, 200, 40)))),
    (SamplingParams(), StoppingParams(24)),
)


@pytest.mark.parametrize(("run_ahead", "speculate"), [(True, 0), (False, 0), (False, 3)])
@pytest.mark.parametrize("graphs", [(), (1, 2, 4, 8, 16)], ids=["eager", "recorded"])
def test_a_greedy_answer_is_that_of_a_loop(make_engine, run_ahead, speculate, graphs):
    engine = make_engine(run_ahead=run_ahead, speculate=speculate, graphs=graphs)
    prompts = [b"ask %d" % number for number in range(len(LOOPED))]
    asked = [Request(n, tuple(prompt), *LOOPED[n]) for n, prompt in enumerate(prompts)]
    result = engine.prefill(PrefillCommand(1, tuple(asked)))
    found: dict[int, list[int]] = {}
    texts: dict[int, list[str]] = {}
    ends = {}
    while True:
        for generation in result.generations:
            found.setdefault(generation.request_id, []).extend(generation.tokens.ids)
            texts.setdefault(generation.request_id, []).extend(generation.tokens.texts)
            ends[generation.request_id] = generation.finished
        if not result.batch:
            break
        result = engine.decode([1])
    assert found == {n: loop(prompt, *LOOPED[n]) for n, prompt in enumerate(prompts)}
    assert len(found[4]) == 10 and len(found[5]) == 24 and len(found[6]) > 3
    for n in (6, 7):  # the token that a request names is no part of the text
        assert ends[n].finish_reason is FinishReason.EOS_TOKEN
        assert not texts[n][-1].endswith(chr(found[n][-1])) and ends[n].text == "".join(texts[n]).replace("</s>", "")


def test_a_bias_for_a_token_that_there_is_not_is_refused(make_engine):
    sampling = SamplingParams(logit_bias=((3, 1.0), (257, 1.0)))
    with pytest.raises(InvalidRequest, match="logit_bias names token 257, outside the model's vocabulary of 257"):
        make_engine().prefill(PrefillCommand(1, (Request(1, (1,), sampling, StoppingParams(3)),)))
