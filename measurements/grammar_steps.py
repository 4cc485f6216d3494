"""What a grammar costs a decode step: engine steps of a real model with and without one, run-ahead on and off.

The cases take turns in every round, so that a busy machine slows them together. Prints milliseconds a step and writes
bench-out/grammar_steps.json.
"""

import argparse
import itertools
import json
import os
import statistics
import time
from pathlib import Path

import torch

from text_generation_server.device.stream import ThreadStream
from text_generation_server.distributed.group import SingleRank
from text_generation_server.engine.engine import Engine
from text_generation_server.engine.runner import Runner
from text_generation_server.engine.settings import EngineSettings
from text_generation_server.engine.types import PrefillCommand, Request, StoppingParams
from text_generation_server.grammar.grammar_type import GrammarType
from text_generation_server.models.loading import ModelOptions, load_model
from text_generation_server.sampling.params import SamplingParams
from text_generation_server.tokenization.adapter import TokenizerAdapter
from text_generation_server.weights.remote import HubSettings
from text_generation_server.weights.source import locate

PERSON = {"properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name", "age"]}
FREE = SamplingParams()
CONSTRAINED = SamplingParams(
    grammar=json.dumps({"type": "array", "items": PERSON, "minItems": 100}), grammar_type=GrammarType.JSON
)
CASES = {"free": [FREE], "every row constrained": [CONSTRAINED], "half of them": [FREE, CONSTRAINED]}
STEPS = 24


def main() -> None:
    """Measure and report."""
    options = parse()
    torch.set_num_threads(options.threads)
    directory = locate(options.model_id, None, HubSettings(Path.home() / ".cache/kvrun/models", offline=True))
    model = load_model(
        directory, ModelOptions(torch.bfloat16, torch.device("cpu")), SingleRank(), lambda _done, _total: None
    )
    tokenizer = TokenizerAdapter.load(directory)
    samples: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for run_ahead, batch, (case, sampling) in itertools.product((True, False), options.batches, CASES.items()):
            if batch < len(sampling):
                continue
            settings = EngineSettings(
                max_rows=batch, block_size=1, run_ahead=run_ahead, memory_fraction=0.1, position_limit=8192
            )
            engine = Engine(Runner(model, SingleRank(), ThreadStream()), tokenizer, settings)
            engine.resize(batch * 128, 128)
            name = f"{'run-ahead' if run_ahead else 'no run-ahead'}, batch {batch}, {case}"
            samples.setdefault(name, []).extend(steps(engine, tokenizer, batch, sampling))
            engine.runner.close()
    report(samples, options.out)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-id", default="smollm2")
    parser.add_argument("--threads", type=int, default=max(1, (os.cpu_count() or 1) - 1))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--out", type=Path, default=Path("bench-out/grammar_steps.json"))
    return parser.parse_args()


def steps(engine: Engine, tokenizer: TokenizerAdapter, batch: int, sampling: list[SamplingParams]) -> list[float]:
    """Milliseconds of each decode step but the first two."""
    requests = tuple(
        Request(
            id=number,
            prompt_ids=tuple(tokenizer.encode(f"Person {number} and their friends, as JSON:")),
            sampling=sampling[number % len(sampling)],
            stopping=StoppingParams(STEPS + 4, ignore_eos=True),
        )
        for number in range(batch)
    )
    engine.prefill(PrefillCommand(1, requests))
    times = []
    for _ in range(STEPS):
        began = time.perf_counter()
        engine.decode([1])
        times.append(1e3 * (time.perf_counter() - began))
    engine.clear(None)
    return times[2:]


def report(samples: dict[str, list[float]], out: Path) -> None:
    """The table, and the file."""
    print(f"{'ms a step':48}{'p10':>8}{'median':>8}")
    for name, times in samples.items():
        print(f"{name:48}{statistics.quantiles(times, n=10)[0]:8.2f}{statistics.median(times):8.2f}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(samples))


if __name__ == "__main__":
    main()
