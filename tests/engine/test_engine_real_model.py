"""The engine over the real small model: run-ahead, batch company and chunks change no token."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mocks.plain_recorder import PlainRecorder
from text_generation_server.device.stream import ThreadStream
from text_generation_server.distributed.group import SingleRank
from text_generation_server.engine.engine import Engine
from text_generation_server.engine.runner import Runner
from text_generation_server.engine.settings import EngineSettings
from text_generation_server.engine.types import PrefillCommand, Request, StoppingParams
from text_generation_server.models.loading import ModelOptions, load_model
from text_generation_server.sampling.params import SamplingParams
from text_generation_server.tokenization.adapter import TokenizerAdapter
from text_generation_server.weights.remote import HubSettings
from text_generation_server.weights.source import locate

PROMPTS = (
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):",
    "Water boils at",
)
SAMPLED = SamplingParams(do_sample=True, temperature=0.8, top_k=40, top_p=0.95, repetition_penalty=1.1, seed=1234)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return locate("smollm2", None, HubSettings(converted_cache=tmp_path_factory.mktemp("models"), offline=True))


@pytest.fixture(scope="module")
def model(directory: Path):
    options = ModelOptions(torch.float32, torch.device("cpu"))
    return load_model(directory, options, SingleRank(), lambda _done, _total: None)


@pytest.fixture(scope="module")
def tokenizer(directory: Path) -> TokenizerAdapter:
    return TokenizerAdapter.load(directory)


@pytest.fixture(params=[(True, ()), (False, ()), (True, (1,))], ids=["run-ahead", "no-run-ahead", "run-ahead-recorded"])
def engine(request, model, tokenizer):
    """With recorded steps all steps of few tokens are replayed; torch's attention has none for decoding alone."""
    run_ahead, graphs = request.param
    settings = EngineSettings(max_rows=8, block_size=1, run_ahead=run_ahead, memory_fraction=0.1, position_limit=8192)
    engine = Engine(Runner(model, SingleRank(), ThreadStream(), PlainRecorder), tokenizer, settings)
    engine.resize(2048, 512, graphs)
    yield engine
    engine.runner.close()


def ask(tokenizer, index: int, sampling: SamplingParams = SamplingParams(), **changes) -> Request:  # noqa: B008
    ids = tuple(tokenizer.encode(PROMPTS[index]))
    return Request(index, ids, sampling, StoppingParams(16, ignore_eos=True), **changes)


def answers(engine: Engine, *commands: PrefillCommand) -> dict[int, list[int]]:
    """Run the batches until all of them end, each started one step after the one before."""
    tokens: dict[int, list[int]] = {}
    todo = list(commands)
    while todo or engine.batch_ids:
        results = [engine.prefill(todo.pop(0))] if todo else []
        results += [engine.decode(engine.batch_ids)] if engine.batch_ids else []
        for generation in (g for result in results for g in result.generations):
            tokens.setdefault(generation.request_id, []).extend(generation.tokens.ids)
    return tokens


@pytest.fixture(scope="module")
def expected(model, tokenizer) -> dict[SamplingParams, dict[int, list[int]]]:
    """What each prompt answers alone, without run-ahead."""
    settings = EngineSettings(max_rows=2, block_size=1, run_ahead=False, memory_fraction=0.1, position_limit=8192)
    engine = Engine(Runner(model, SingleRank(), ThreadStream()), tokenizer, settings)
    engine.resize(512, 512)
    alone = {}
    for sampling in (SamplingParams(), SAMPLED):
        alone[sampling] = {}
        for index in range(len(PROMPTS)):
            alone[sampling] |= answers(engine, PrefillCommand(index, (ask(tokenizer, index, sampling),)))
    engine.runner.close()
    return alone


@pytest.mark.parametrize("sampling", [SamplingParams(), SAMPLED], ids=["greedy", "sampled"])
def test_company_changes_no_token(engine, tokenizer, expected, sampling):
    requests = tuple(ask(tokenizer, index, sampling) for index in range(len(PROMPTS)))
    assert answers(engine, PrefillCommand(0, requests)) == expected[sampling]


@pytest.mark.parametrize("sampling", [SamplingParams(), SAMPLED], ids=["greedy", "sampled"])
def test_joining_later_and_in_chunks_changes_no_token(engine, tokenizer, expected, sampling):
    commands = [
        PrefillCommand(index, (ask(tokenizer, index, sampling, chunk=3),), cached_batch_id=0 if index else None)
        for index in range(len(PROMPTS))
    ]
    assert answers(engine, *commands) == expected[sampling]


def test_the_model_knows_its_capital(tokenizer, expected):
    assert tokenizer.decode(expected[SamplingParams()][0]).startswith(" Paris")


@pytest.mark.parametrize("sampling", [SamplingParams(), SAMPLED], ids=["greedy", "sampled"])
def test_stays_change_no_token(engine, tokenizer, sampling):
    request = ask(tokenizer, 1, sampling)
    whole = answers(engine, PrefillCommand(1, (request,)))[1]
    said: list[int] = []
    for stay in (5, 10, 1):
        stopping = StoppingParams(stay, ignore_eos=True, resumable=len(said) + stay < 16)
        ids = request.prompt_ids + tuple(said)
        again = replace(request, prompt_ids=ids, stopping=stopping, generated=len(said))
        said += answers(engine, PrefillCommand(1, (again,)))[1]
    assert said == whole
