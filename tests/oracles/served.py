"""The engine over a case's model: what requests get there is what transformers answered."""

from collections.abc import Iterator
from contextlib import contextmanager

from mocks.byte_tokenizer import ByteTokenizer
from mocks.plain_recorder import PlainRecorder
from oracles.build import ANSWER_LEN, Reference
from text_generation_server.device.recorder import CudaRecorder
from text_generation_server.device.stream import make_stream
from text_generation_server.distributed.group import SingleRank
from text_generation_server.engine.engine import Engine
from text_generation_server.engine.runner import Runner
from text_generation_server.engine.settings import EngineSettings
from text_generation_server.engine.types import Failure, PrefillCommand, Request, StoppingParams
from text_generation_server.models.step import ServedModel
from text_generation_server.sampling.params import SamplingParams


@contextmanager
def engine_of(model: ServedModel, max_rows: int = 4, **settings: object) -> Iterator[Engine]:
    """An engine of 512 slots whose decode steps of one, two and four rows are recorded where `graphs` says so."""
    reader = model.reader
    assert reader is not None
    known = {"block_size": 1, "run_ahead": True, "memory_fraction": 0.1, "position_limit": None, "graphs": ()}
    shown = {"feature_places": reader.places, "sight": reader.sight, "views": reader.views}
    made = EngineSettings(max_rows=max_rows, **{**known, **shown, **settings})
    recorder = CudaRecorder if model.device.type == "cuda" else PlainRecorder
    engine = Engine(Runner(model, SingleRank(), make_stream(model.device), recorder), ByteTokenizer(), made)
    engine.resize(512, 128, made.graphs)
    yield engine
    engine.runner.close()


def requests_of(reference: Reference, **changes: object) -> list[Request]:
    """A request for each of its prompts, with as many tokens as transformers was asked for."""
    stopping = StoppingParams(ANSWER_LEN, ignore_eos=True)
    return [
        Request(row, tuple(prompt), SamplingParams(), stopping, images=tuple(images), **changes)
        for row, (prompt, images) in enumerate(zip(reference.prompts, reference.images, strict=True))
    ]


def answers(engine: Engine, requests: list[Request], batch: int = 1) -> dict[int, list[int]]:
    """What each gets, all in one batch."""
    found: dict[int, list[int]] = {request.id: [] for request in requests}
    result = engine.prefill(PrefillCommand(batch, tuple(requests)))
    while True:
        for generation in result.generations:
            assert not isinstance(generation.finished, Failure), generation.finished
            found[generation.request_id] += generation.tokens.ids
        if result.batch is None:
            return found
        result = engine.decode([batch])
