"""Adapters on a CUDA device: replayed steps serve every mixture of them, with the tokens of merged weights."""

import pytest
import torch

from mocks.byte_tokenizer import ByteTokenizer
from oracles.build import build
from oracles.case import LLAMA, Case
from oracles.lora import save_adapter, save_merged, started
from text_generation_server.adapters.loading import NO_ADAPTERS
from text_generation_server.adapters.targets import targets_of
from text_generation_server.device.recorder import CudaRecorder
from text_generation_server.device.stream import make_stream
from text_generation_server.distributed.group import SingleRank
from text_generation_server.engine.engine import Engine
from text_generation_server.engine.runner import Runner
from text_generation_server.engine.settings import EngineSettings
from text_generation_server.engine.types import PrefillCommand, Request, StoppingParams
from text_generation_server.models.loading import ModelOptions, load_model
from text_generation_server.sampling.params import SamplingParams

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

CUDA = torch.device("cuda")
NAMES = "abcdef"


def answers(model, adapters, asked, graphs):
    settings = EngineSettings(16, 1, run_ahead=True, memory_fraction=0.2, position_limit=128, graphs=graphs)
    runner = Runner(model, SingleRank(), make_stream(CUDA), CudaRecorder, adapters.own)
    engine = Engine(runner, ByteTokenizer(), settings, adapters.registry(runner))
    engine.resize(4096, 128, graphs)
    while engine.use_pause():
        pass
    tokens = {}
    todo = [
        Request(row, tuple(range(3, 9 + row)), SamplingParams(), StoppingParams(16, ignore_eos=True), adapter=name)
        for row, name in enumerate(asked)
    ]
    while todo or engine.batch_ids:
        joined = 0 if engine.batch_ids else None
        results = [engine.prefill(PrefillCommand(len(tokens), (todo.pop(0),), joined))] if todo else []
        results += [engine.decode(engine.batch_ids)] if engine.batch_ids else []
        for generation in (g for result in results for g in result.generations):
            tokens.setdefault(generation.request_id, []).extend(generation.tokens.ids)
    engine.runner.close()
    return [tokens[row] for row in range(len(asked))]


WIDE = {**LLAMA, "head_dim": 128}
CASES = {
    "llama": Case("llama-wide", "", "llama", WIDE, ""),
    "mixtral": Case(
        *("mixtral-wide", "", "mixtral"),
        WIDE | {"intermediate_size": 48, "num_local_experts": 4, "num_experts_per_tok": 2},
        "",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("places", [6, 2])
@pytest.mark.parametrize("graphs", [(), (1, 2, 4, 8)], ids=["eager", "recorded"])
def test_replayed_steps_serve_every_mixture(tmp_path, graphs, places, case):
    build(case, tmp_path / "model")
    options = ModelOptions(torch.float32, CUDA, attention="triton")

    def load(directory):
        return load_model(directory, options, SingleRank(), lambda _done, _total: None)

    model, asked = load(tmp_path / "model"), [None, *NAMES, None, "b"]
    shapes, expected = targets_of(model.linears).shapes, {None: answers(model, NO_ADAPTERS, [None] * 9, graphs)}
    for seed, name in enumerate(NAMES):
        deltas = save_adapter(tmp_path / name, shapes, rank=2 + seed, seed=seed)
        merged = load(save_merged(tmp_path / "model", deltas, tmp_path / f"merged-{name}"))
        expected[name] = answers(merged, NO_ADAPTERS, [None] * 9, graphs)
    # Fewer places than adapters: some wait for others, and recorded steps see another adapter at a place.
    adapters = started(model, {name: tmp_path / name for name in NAMES}, places=places)
    assert answers(model, adapters, asked, graphs) == [expected[name][row] for row, name in enumerate(asked)]
