"""The server's own processor time for each decoded token, by stage, with a device that answers at once.

Everything that a Decode call costs on rank 0's host is there, from the request's bytes to the answer's, except gRPC
itself, handing over between threads, and the device: its tokens are the next ones of a real text. Prints microseconds
a row and each stage's share for several batch sizes, and writes them to bench-out/server_cost.json.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch

from text_generation_protocol.v3 import generate_pb2 as pb
from text_generation_server.engine.choosing import SamplingInput
from text_generation_server.engine.detokenizer import IncrementalText
from text_generation_server.engine.engine import Engine
from text_generation_server.engine.launched_step import StepOutput
from text_generation_server.engine.plan import AllocateCache, Fitting, MeasureMemory, StepPlan
from text_generation_server.engine.settings import EngineSettings
from text_generation_server.engine.step_launcher import StepLauncher
from text_generation_server.engine.stopping import IdRule, TextRule
from text_generation_server.engine.types import PrefillCommand, Request, StoppingParams
from text_generation_server.rpc.wire_v3 import WireV3
from text_generation_server.sampling.params import SamplingParams
from text_generation_server.sampling.sampler import HostSampled, TokenCounts
from text_generation_server.settings import hub_settings
from text_generation_server.tokenization.adapter import TokenizerAdapter
from text_generation_server.weights.source import locate

BATCHES = (1, 32, 128, 256)
STEPS = 120
WARM_STEPS = 20
STOP = ("\n\nQuestion:",)


class InstantRunner:
    """A device whose steps are done when they are launched; each row says a text, from a place of its own."""

    def __init__(self, text: Sequence[int], vocab_size: int) -> None:
        self.counts = TokenCounts(vocab_size, torch.device("cpu"))
        self.device = torch.device("cpu")
        self.vocab_size = vocab_size
        self.bytes_per_slot = 1
        self.bytes_per_row = 0
        self._text = text
        self._step = 0

    def allocate(self, command: AllocateCache) -> Future[None]:
        """Nothing."""
        return _done(None)

    def fitting(self, command: MeasureMemory) -> Future[Fitting]:
        """Enough."""
        return _done(Fitting(1 << 20, command.num_rows))

    def record_more(self) -> Future[bool]:
        """Nothing is recorded."""
        return _done(False)

    def launch(self, plan: StepPlan, sampling: SamplingInput | None) -> Future[StepOutput]:
        """The text's next token of each row."""
        self._step += 1
        ids = [self._text[(row * 37 + self._step) % len(self._text)] for row in plan.rows]
        return _done(StepOutput(HostSampled(ids, [-0.5] * len(ids), [[]] * len(ids)), (), 0))

    def reserve_adapters(self) -> None:
        """Nothing."""

    def put_adapter(self, key: int, place: int) -> None:
        """Nothing."""

    def drop_adapter(self, key: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def _done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


class Stages:
    """Processor time of this thread spent in each named function, nested ones taken out of what is around them."""

    def __init__(self) -> None:
        self.spent: dict[str, int] = {}
        self._nested = [0]

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its own time counted under the name."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._nested.append(0)
            began = time.thread_time_ns()
            try:
                return function(*args, **kwargs)
            finally:
                whole = time.thread_time_ns() - began
                self.spent[name] = self.spent.get(name, 0) + whole - self._nested.pop()
                self._nested[-1] += whole

        return timed


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-id", default="smollm2")
    parser.add_argument("--out", type=Path, default=Path("bench-out/server_cost.json"))
    options = parser.parse_args()
    tokenizer = TokenizerAdapter.load(locate(options.model_id, None, hub_settings()))
    text = tokenizer.encode(Path(__file__).read_text() + Path("README.md").read_text(), add_special_tokens=False)
    plain = {batch: plain_cost(tokenizer, text, batch) for batch in BATCHES}
    shares = {batch: stage_shares(tokenizer, text, batch) for batch in BATCHES}
    report(plain, shares)
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps({"us_a_row": plain, "shares": shares}, indent=2))


def plain_cost(tokenizer: TokenizerAdapter, text: Sequence[int], batch: int) -> float:
    """Microseconds of processor time a row and step, the median over steps; nothing is instrumented."""
    step = decoding(tokenizer, text, batch)
    costs = []
    for _ in range(STEPS):
        began = time.thread_time_ns()
        step()
        costs.append((time.thread_time_ns() - began) / 1e3 / batch)
    return statistics.median(costs[WARM_STEPS:])


def stage_shares(tokenizer: TokenizerAdapter, text: Sequence[int], batch: int) -> dict[str, float]:
    """Each stage's part of the time, with all of them instrumented, which the small ones pay for."""
    stages = Stages()
    step = decoding(tokenizer, text, batch, stages)
    for _ in range(WARM_STEPS):
        step()
    stages.spent.clear()
    for _ in range(STEPS):
        step()
    whole = sum(stages.spent.values())
    return {name: spent / whole for name, spent in sorted(stages.spent.items(), key=lambda item: -item[1])}


def decoding(
    tokenizer: TokenizerAdapter, text: Sequence[int], batch: int, stages: Stages | None = None
) -> Callable[[], None]:
    """One Decode call of a batch of so many rows, from bytes to bytes."""
    settings = EngineSettings(max_rows=batch, block_size=1, run_ahead=True, memory_fraction=1.0, position_limit=None)
    engine = Engine(InstantRunner(text, tokenizer.vocab_size), tokenizer, settings)
    wire = WireV3(prefill_logprobs=False)
    parse, answer, serialise = pb.DecodeRequest.FromString, wire.decode_response, pb.DecodeResponse.SerializeToString
    decode = engine.decode
    if stages is not None:
        parse, answer = stages.around("parse", parse), stages.around("message", answer)
        serialise, decode = stages.around("serialise", serialise), stages.around("batches", decode)
        engine._launcher.launch = stages.around("plan", StepLauncher.launch.__get__(engine._launcher))  # type: ignore[method-assign]
        collector = engine._collector
        collector.collect = stages.around("collect", collector.collect)  # type: ignore[method-assign]
    engine.resize(4 * batch * (STEPS + WARM_STEPS), STEPS + WARM_STEPS + 64)
    engine.prefill(PrefillCommand(1, tuple(_request(i, text) for i in range(batch))))
    if stages is not None:
        _instrument_texts(engine, stages)
    request = pb.DecodeRequest(batches=[pb.CachedBatch(id=1, request_ids=range(batch), size=batch)]).SerializeToString()

    def step() -> None:
        message = parse(request)
        result = decode([cached.id for cached in message.batches])
        serialise(answer(result, 0))

    return step


def _instrument_texts(engine: Engine, stages: Stages) -> None:
    """Each sequence's text and stop rules, in classes of their own: slotted objects take no new methods."""

    class TimedText(IncrementalText):
        append = stages.around("detokenise", IncrementalText.append)

    class TimedTextRule(TextRule):
        append = stages.around("stop", TextRule.append)

    class TimedIdRule(IdRule):
        accept = stages.around("stop", IdRule.accept)

    for sequence in engine._batches[1].sequences:
        sequence.text._text.__class__ = TimedText
        sequence.text.__class__ = TimedTextRule
        sequence.stop.__class__ = TimedIdRule


def _request(index: int, text: Sequence[int]) -> Request:
    stopping = StoppingParams(STEPS + WARM_STEPS + 8, STOP, ignore_eos=True)
    return Request(index, tuple(text[index : index + 16]), SamplingParams(), stopping)


def report(plain: dict[int, float], shares: dict[int, dict[str, float]]) -> None:
    """A table: a line a batch size."""
    names = list(shares[BATCHES[-1]])
    print("| batch | us a row | " + " | ".join(names) + " |")
    print("| --- " * (len(names) + 2) + "|")
    for batch, cost in plain.items():
        columns = (f"{shares[batch].get(name, 0.0):.0%}" for name in names)
        print(f"| {batch} | {cost:.1f} | " + " | ".join(columns) + " |")


if __name__ == "__main__":
    main()
