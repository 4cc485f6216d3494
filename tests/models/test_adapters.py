"""Adapters beside a model answer as the model does with them merged: in one batch, by the engine, on two ranks."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mocks.byte_tokenizer import ByteTokenizer
from mocks.plain_recorder import PlainRecorder
from oracles.driver import Driver
from oracles.lora import place, save_adapter, save_merged, started
from text_generation_server.adapters.bank import ALIGNMENT
from text_generation_server.adapters.loading import NO_ADAPTERS, StartedAdapters
from text_generation_server.adapters.sources import USUAL_PLACES, USUAL_RANK, AdapterSource
from text_generation_server.adapters.targets import targets_of
from text_generation_server.device.stream import ThreadStream
from text_generation_server.distributed.group import SingleRank
from text_generation_server.engine.engine import Engine
from text_generation_server.engine.runner import Runner
from text_generation_server.engine.settings import EngineSettings
from text_generation_server.engine.types import PrefillCommand, Request, StoppingParams
from text_generation_server.errors import UnsupportedModel
from text_generation_server.models.loading import ModelOptions, load_model
from text_generation_server.models.step import ServedModel
from text_generation_server.sampling.params import SamplingParams

FLOAT32 = ModelOptions(torch.float32, torch.device("cpu"))
CASES = ["llama", "falcon-40b", "qwen2_moe"]
"""Linears apart, fused in an order of their own, and of experts."""
NAMES = [None, "law", "verse"]


class Adapted:
    """A case's model with two adapters of different ranks, one of them to attention only, and merged with each."""

    def __init__(self, oracle, folder: Path) -> None:
        self.model, self.merged = oracle.load(), []
        every = targets_of(self.model.linears).shapes
        attention = {name: shape for name, shape in every.items() if "att" in name or "qkv" in name.lower()}
        self.directories = [folder / "law", folder / "verse"]
        for at, shapes in enumerate((every, attention)):
            deltas = save_adapter(self.directories[at], shapes, rank=(2, 5)[at], seed=at)
            place = save_merged(oracle.directory, deltas, folder / f"merged-{at}")
            self.merged.append(load_model(place, FLOAT32, SingleRank(), lambda _done, _total: None))
        self.plain = oracle.load()
        self.adapters = started(self.model, {directory.name: directory for directory in self.directories})
        for key in (1, 2):
            self.adapters.own.put(key, key)

    @property
    def apart(self) -> list[ServedModel]:
        """The model as it is without adapters, and with each."""
        return [self.plain, *self.merged]


@pytest.fixture(scope="module")
def adapted(oracle_of, tmp_path_factory) -> Callable[[str], Adapted]:
    made: dict[str, Adapted] = {}

    def of(name: str) -> Adapted:
        if name not in made:
            made[name] = Adapted(oracle_of(name), tmp_path_factory.mktemp("adapted"))
        return made[name]

    return of


@pytest.mark.parametrize("name", CASES)
def test_each_sequence_of_a_batch_has_its_own_adapter(adapted, oracle_of, name):
    case, tolerance = adapted(name), oracle_of(name).case.tolerance
    work = [(0, [5, 6, 7, 8]), (1, [9, 10, 11]), (2, [9, 10, 11]), (3, [12])]
    numbers = [0, 1, 2, 1]
    alone = [[Driver(model).step([piece])[0] for piece in work] for model in case.apart]
    expected = [alone[number][row] for row, number in enumerate(numbers)]
    assert all(not torch.allclose(alone[0][1], model[1], atol=0.05) for model in alone[1:])

    together = Driver(case.model, adapters=numbers)
    for got, wanted in zip(together.step(work), expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=10 * tolerance, rtol=1e-4)
    ends = Driver(case.model, adapters=numbers).pick(work, [6, 9, 10])
    torch.testing.assert_close(ends, torch.stack([one[-1] for one in expected[1:]]), atol=10 * tolerance, rtol=1e-4)
    for got, plain in zip(Driver(case.model, adapters=[0] * 4).step(work), alone[0], strict=True):
        torch.testing.assert_close(got, plain, atol=tolerance, rtol=1e-4)


def engine_of(
    model: ServedModel, adapters: StartedAdapters = NO_ADAPTERS, speculate: int = 0, graphs: tuple[int, ...] = ()
) -> Engine:
    settings = EngineSettings(8, 1, run_ahead=True, memory_fraction=0.1, position_limit=128, speculate=speculate)
    runner = Runner(model, SingleRank(), ThreadStream(), PlainRecorder, adapters.own)
    engine = Engine(runner, ByteTokenizer(), settings, adapters.registry(runner))
    engine.resize(512, 64, graphs)
    return engine


def ask(number: int, adapter: str | None, prompt: tuple[int, ...], **more) -> Request:
    return Request(number, prompt, SamplingParams(), StoppingParams(12, ignore_eos=True), adapter=adapter, **more)


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


PROMPT = (5, 17, 3, 44, 9, 9, 30, 61)


@pytest.fixture(scope="module")
def alone(adapted) -> list[list[int]]:
    """What the model answers without adapters, and with each merged."""
    found = []
    for model in adapted("llama").apart:
        engine = engine_of(model)
        found.append(answers(engine, PrefillCommand(0, (ask(0, None, PROMPT),)))[0])
        engine.runner.close()
    assert len({tuple(answer) for answer in found}) == 3
    return found


@pytest.fixture(params=[(0, ()), (0, (1, 2, 4)), (2, ())], ids=["run-ahead", "recorded", "speculating"])
def engine(request, adapted):
    engine = engine_of(adapted("llama").model, adapted("llama").adapters, *request.param)
    yield engine
    engine.runner.close()


def test_requests_that_join_in_chunks_keep_their_adapters(engine, alone):
    asked = [None, "law", "verse", "law"]
    commands = [
        PrefillCommand(at, (ask(at, adapter, PROMPT, chunk=3),), cached_batch_id=0 if at else None)
        for at, adapter in enumerate(asked)
    ]
    expected = [alone[NAMES.index(adapter)] for adapter in asked]
    assert list(answers(engine, *commands).values()) == expected
    # Rows are used again, by others.
    again = PrefillCommand(9, tuple(ask(at, adapter, PROMPT) for at, adapter in enumerate(reversed(asked))))
    assert list(answers(engine, again).values()) == expected[::-1]


def test_a_prefix_is_taken_over_from_the_same_adapter_only(engine, alone):
    slots = tuple(range(40))
    for at, adapter in enumerate(["law", "law", "verse", None]):
        request = ask(at, adapter, PROMPT, slots=slots, cache_len=len(PROMPT) - 1)
        assert answers(engine, PrefillCommand(at, (request,)))[at] == alone[NAMES.index(adapter)]


@pytest.mark.parametrize("graphs", [(), (1, 2, 4)], ids=["eager", "recorded"])
def test_adapters_that_take_turns_at_a_place_answer_as_ever(adapted, alone, graphs, tmp_path):
    """What is recorded serves whatever is at the place; a name that is loaded again means something else."""
    case = adapted("llama")
    plain = case.plain
    adapters = started(plain, {"law": case.directories[0], "verse": case.directories[1]}, places=1)
    engine = engine_of(plain, adapters, graphs=graphs)
    try:
        asked = ["verse", None, "law", "verse", "law"]
        command = PrefillCommand(0, tuple(ask(at, adapter, PROMPT) for at, adapter in enumerate(asked)))
        assert answers(engine, command) == {at: alone[NAMES.index(adapter)] for at, adapter in enumerate(asked)}
        engine.adapters.load(AdapterSource("law", str(case.directories[1]))).result()
        engine.adapters.settle()
        both = PrefillCommand(1, (ask(0, "law", PROMPT), ask(1, None, PROMPT)))
        assert answers(engine, both) == {0: alone[2], 1: alone[0]}
    finally:
        engine.runner.close()
        adapters.own.release()


def test_an_unknown_adapter_fails_its_request_alone(engine, alone):
    result = engine.prefill(PrefillCommand(0, (ask(0, "lore", PROMPT), ask(1, "law", PROMPT))))
    (failed,) = [generation for generation in result.generations if generation.request_id == 0]
    assert "there is no adapter 'lore' here; name one of law, verse, or none" in failed.finished.reason
    engine.clear(None)


def test_a_model_without_linears_of_its_own_is_refused(tmp_path):
    generic = SimpleNamespace(linears=(), dtype=torch.float32, device=torch.device("cpu"))
    with pytest.raises(UnsupportedModel, match="adapters are neither for models that run through transformers' code"):
        started(generic, {"law": tmp_path})


def test_experts_need_room_that_was_asked_for(adapted):
    case = adapted("qwen2_moe")
    for room, message in ((None, "no room: start with --max-lora-expert-rank 2"), (1, "start with --max-lora-expert")):
        with pytest.raises(UnsupportedModel, match=message):
            started(case.plain, {}, expert_rank=room).own.read(1, case.directories[0])
    assert started(case.plain, {}, expert_rank=2).own.read(1, case.directories[0]).rank == 2


def test_places_take_what_the_formula_says(oracle_of, tmp_path):
    model = oracle_of("llama").load()
    shapes = {name: shape for name, shape in targets_of(model.linears).shapes.items() if "layers.1.self_attn" in name}
    save_adapter(tmp_path / "law", shapes, rank=2, seed=0, layers_to_transform=[1])
    place(model, [tmp_path / "law"])
    bank = model.linears[0].addend
    sizes = [size for shape in targets_of(model.linears).shapes.values() for size in shape]
    numbers = sum(-(-USUAL_RANK * size // ALIGNMENT) * ALIGNMENT for size in sizes)
    assert bank._numbers.nbytes == 4 * USUAL_PLACES * numbers
    (changed,) = (bank._ranks > 0).nonzero()[:, 0].unique().tolist()
    assert (changed, int((bank._ranks == 2).sum())) == (0, len(shapes))
