"""The engine on a CUDA device: recorded or not, launched ahead or not, a request gets the same tokens."""

import pytest
import torch

from mocks.byte_tokenizer import ByteTokenizer
from oracles.build import build
from oracles.case import LLAMA, TOKENS, VOCAB_SIZE, Case
from text_generation_server.choices import KvCacheDtype
from text_generation_server.device.recorder import CudaRecorder
from text_generation_server.device.stream import make_stream
from text_generation_server.distributed.group import SingleRank
from text_generation_server.engine.engine import Engine
from text_generation_server.engine.runner import Runner
from text_generation_server.engine.settings import EngineSettings
from text_generation_server.engine.types import PrefillCommand, Request, StoppingParams, WarmupCommand
from text_generation_server.models.loading import ModelOptions, load_model
from text_generation_server.sampling.params import SamplingParams

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

CUDA = torch.device("cuda")
NEW_TOKENS = 24
SAMPLINGS = {
    "greedy": SamplingParams(),
    "temperature": SamplingParams(temperature=0.9, do_sample=True, seed=7),
    "cut": SamplingParams(temperature=0.9, top_k=20, top_p=0.8, do_sample=True, seed=7),
    "penalised": SamplingParams(repetition_penalty=1.3, temperature=0.9, do_sample=True, seed=7),
}


@pytest.fixture(scope="module", params=["flashinfer", "triton", "sdpa", "triton, 8 bits"])
def model(request, tmp_path_factory):
    """A model whose heads all backends take; in float32, where one can, rounding cannot choose another token."""
    directory = tmp_path_factory.mktemp("model")
    build(Case("llama-wide", "", "llama", {**LLAMA, "head_dim": 128}, ""), directory)
    dtype = torch.bfloat16 if request.param == "flashinfer" else torch.float32
    attention, _, narrow = request.param.partition(", ")
    kept = KvCacheDtype.FP8_E4M3FN if narrow else KvCacheDtype.AUTO
    options = ModelOptions(dtype, CUDA, attention=attention, kv_cache_dtype=kept)
    return load_model(directory, options, SingleRank(), lambda _done, _total: None)


OTHERS = {
    "mamba": {**TOKENS, "hidden_size": 64, "num_hidden_layers": 2},
    "mamba2": {**TOKENS, "hidden_size": 64, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 16, "n_groups": 1},
    "bamba": {**LLAMA, "head_dim": 64, "mamba_n_heads": 8, "attn_layer_indices": [1]},
    "t5": {"vocab_size": VOCAB_SIZE, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4},
}


@pytest.fixture(scope="module", params=OTHERS)
def other(request, tmp_path_factory):
    """A model of other states than keys and values of its tokens, in float32."""
    directory = tmp_path_factory.mktemp("other")
    build(Case(request.param, "", request.param, OTHERS[request.param], ""), directory)
    return load_model(directory, ModelOptions(torch.float32, CUDA), SingleRank(), lambda _done, _total: None)


def start(model, *, run_ahead=True, graphs=(1, 2, 4, 8), complete=True):
    settings = EngineSettings(
        max_rows=16,
        block_size=1,
        run_ahead=run_ahead,
        memory_fraction=0.2,
        position_limit=512,
        graphs=graphs,
        start=None if model.encoder is None else model.encoder.start,
    )
    engine = Engine(Runner(model, SingleRank(), make_stream(CUDA), CudaRecorder), ByteTokenizer(), settings)
    engine.resize(4096, 512, graphs)
    while complete and engine.use_pause():
        pass
    return engine


def requests(sampling):
    lens = (3, 60, 17, 1, 130, 9, 33, 5)
    prompts = [tuple((7 * row + 3 * at) % 90 + 2 for at in range(length)) for row, length in enumerate(lens)]
    stopping = StoppingParams(NEW_TOKENS, ignore_eos=True)
    return [Request(row, prompt, sampling, stopping) for row, prompt in enumerate(prompts)]


def answers(engine, sampling, at_once, between_steps=lambda: None):
    """So many requests come in at once, and more while those before them are answered."""
    tokens = {}
    todo = requests(sampling)
    while todo or engine.batch_ids:
        cached = next(iter(engine.batch_ids), None)
        now, todo = todo[:at_once], todo[at_once:]
        coming = PrefillCommand(len(todo), tuple(now), cached) if now else None
        result = engine.decode([cached]) if coming is None else engine.prefill(coming)
        between_steps()
        for generation in result.generations:
            tokens.setdefault(generation.request_id, []).extend(generation.tokens.ids)
    return tokens


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
def test_recording_and_running_ahead_change_no_token(model, sampling):
    # Which rows share a step depends on running ahead, and on how many do how products are rounded to 16 bits.
    at_once = 1 if model.kv.dtype is torch.float32 else 8
    got = {}
    for run_ahead, graphs in ((False, ()), (True, ()), (False, (1, 2, 4, 8)), (True, (1, 2, 4, 8))):
        engine = start(model, run_ahead=run_ahead, graphs=graphs)
        got[run_ahead, bool(graphs)] = answers(engine, sampling, at_once)
        engine.runner.close()
    plain = got[False, False]
    assert all(len(row) == NEW_TOKENS for row in plain.values())
    assert all(other == plain for other in got.values())


def test_a_warm_up_leaves_a_cache_and_answers_as_before(model):
    engine = start(model)
    expected = answers(engine, SAMPLINGS["greedy"], 8)
    command = WarmupCommand(tuple(requests(SAMPLINGS["cut"])), max_prefill_tokens=256, max_total_tokens=256)
    result = engine.warmup(command)
    assert result.supported_tokens > 256
    free, _ = torch.cuda.mem_get_info()
    assert free > 0.5 * torch.cuda.get_device_properties(CUDA).total_memory
    assert answers(engine, SAMPLINGS["greedy"], 8) == expected
    engine.runner.close()


@pytest.mark.parametrize("sampling", ["greedy", "penalised"])
def test_other_states_are_replayed(other, sampling, monkeypatch):
    """Steps with prompts beside answers too: none is prepared by itself where all are recorded."""
    engine = start(other, run_ahead=False, graphs=())
    plain = answers(engine, SAMPLINGS[sampling], 3)
    engine.runner.close()
    monkeypatch.setattr(type(other), "prepare", lambda *_: pytest.fail("a step was not replayed"))
    for run_ahead in (False, True):
        engine = start(other, run_ahead=run_ahead)
        assert answers(engine, SAMPLINGS[sampling], 3) == plain
        engine.runner.close()


@pytest.mark.parametrize("run_ahead", [False, True])
def test_sizes_that_are_recorded_while_requests_run_change_no_token(model, run_ahead):
    if model.kv.dtype is not torch.float32:
        pytest.skip("products of another size are rounded otherwise in 16 bits")
    graphs = (1, 2, 3, 4, 5, 6, 7, 8)
    early, late = (start(model, run_ahead=run_ahead, graphs=graphs, complete=done) for done in (True, False))
    expected = answers(early, SAMPLINGS["temperature"], 1)
    assert answers(late, SAMPLINGS["temperature"], 1, late.use_pause) == expected
    for engine in (early, late):
        engine.runner.close()
