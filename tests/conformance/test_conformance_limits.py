"""How long sequences get: the operator's number, else the model's positions, else the tokenizer's hint."""

import pytest
import torch
from loguru import logger

from mocks.byte_tokenizer import ByteTokenizer
from mocks.mock_model import MockModel
from text_generation_server.distributed.group import SingleRank
from text_generation_server.engine.loop import EngineLoop
from text_generation_server.engine.types import WarmupCommand
from text_generation_server.errors import InvalidRequest
from text_generation_server.placement import Placement
from text_generation_server.serve import LoadedRank, make_engine
from text_generation_server.settings import ServeOptions, server_config


@pytest.fixture
def warm_up(tmp_path):
    """Start an engine as `serve` does; give the longest sequence of its warm-up, and what was logged."""
    said = []
    sink = logger.add(said.append, level="INFO", format="{message}")
    loops = []

    def start(positions, hint, asked):
        model, tokenizer = MockModel(max_positions=positions), ByteTokenizer()
        tokenizer.model_max_length = hint
        config = server_config(ServeOptions("mock", uds_path=tmp_path / "s"), {"CUDA_MEMORY_FRACTION": "0.001"})
        part = LoadedRank(tmp_path, model, Placement(torch.device("cpu"), torch.float32, 1), SingleRank())
        loops.append(EngineLoop(make_engine(config, part, tokenizer)))
        loops[-1].start()
        command = WarmupCommand((), max_prefill_tokens=8, max_total_tokens=asked)
        result = loops[-1].submit(lambda engine: engine.warmup(command)).result()
        return result.max_total_tokens, "".join(said)

    yield start
    logger.remove(sink)
    for loop in loops:
        loop.stop()


@pytest.mark.parametrize(
    ("positions", "hint", "asked", "expected", "told"),
    [
        (64, 16, None, 64, "model_max_length of tokenizer_config.json is 16: not heeded, the model is good for 64"),
        (64, 16, 32, 32, "not heeded"),
        (16, 64, None, 16, "not heeded"),
        (None, 16, None, 16, "up to 16 tokens where --max-total-tokens does not say: model_max_length of tokenizer"),
        (None, 16, 32, 32, "up to 16 tokens where --max-total-tokens does not say"),
        (64, 64, None, 64, ""),
        (64, None, None, 64, ""),
    ],
)
def test_a_hint_never_beats_a_number(warm_up, positions, hint, asked, expected, told):
    longest, said = warm_up(positions, hint, asked)
    assert longest == expected
    assert told in said and ("model_max_length" in said) == bool(told)


def test_a_number_beyond_the_model_s_positions_is_refused(warm_up):
    with pytest.raises(InvalidRequest, match="--max-total-tokens 65 is more than the 64 positions of the model"):
        warm_up(64, 16, 65)
