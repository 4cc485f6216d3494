"""Engines over the mock model."""

from collections.abc import Callable, Iterator

import pytest

from mocks.byte_tokenizer import ByteTokenizer
from mocks.guessing import AlwaysGuess
from mocks.mock_model import MockModel
from mocks.plain_recorder import PlainRecorder
from text_generation_server.device.stream import ThreadStream
from text_generation_server.distributed.group import SingleRank
from text_generation_server.engine.engine import Engine
from text_generation_server.engine.guessing import Guessing
from text_generation_server.engine.runner import Runner
from text_generation_server.engine.settings import EngineSettings
from text_generation_server.specs.vision import Sight

MakeEngine = Callable[..., Engine]


@pytest.fixture
def make_engine() -> Iterator[MakeEngine]:
    """Make engines with a cache of `num_slots` tokens; their streams are closed afterwards."""
    engines: list[Engine] = []

    def make(
        *,
        run_ahead: bool = True,
        num_slots: int = 512,
        max_len: int = 256,
        max_rows: int = 16,
        block_size: int = 4,
        max_prefill_tokens: int = 4096,
        model: MockModel | None = None,
        speculate: int = 0,
        graphs: tuple[int, ...] = (),
        max_mixed_tokens: int = 1024,
        guessing: Guessing | None = None,
        all_rows: bool = False,
        feature_places: int = 32,
    ) -> Engine:
        model = model or MockModel()
        runner = Runner(model, SingleRank(), ThreadStream(), PlainRecorder)
        settings = EngineSettings(
            max_rows=max_rows,
            block_size=block_size,
            run_ahead=run_ahead,
            memory_fraction=1e-4,
            position_limit=None,
            shares_prefixes=not any(spec.unshared for spec in model.states),
            speculate=speculate,
            graphs=graphs,
            max_mixed_tokens=max_mixed_tokens,
            start=None if model.encoder is None else model.encoder.start,
            all_rows=all_rows,
            feature_places=lambda _: 0 if model.reader is None else feature_places,
            sight=Sight.CAUSAL if model.reader is None else model.reader.sight,
        )
        engine = Engine(runner, ByteTokenizer(), settings, guessing=guessing or AlwaysGuess())
        engine.resize(num_slots, max_len, graphs)
        engine.max_prefill_tokens = max_prefill_tokens
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.runner.close()
