"""Traffic of many adapters, few of which fit: how often one is where it is needed, and what it costs when it is not.

A thousand names, each a directory, are asked for as Zipf's law has it by clients that send the next request when the
last is answered, of one engine in this process. Told are where adapters were when requests came, the time to the first
token for each case, what comes of loading one beyond that, and whether every request was answered. Needs no network.
`--model` is the directory of a model; without it, one with random weights is made.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from adapters import TINY, load
from text_generation_server.adapters.loading import start_adapters
from text_generation_server.adapters.sources import AdapterSettings, AdapterSource
from text_generation_server.adapters.targets import targets_of
from text_generation_server.device.recorder import CudaRecorder
from text_generation_server.device.stream import make_stream
from text_generation_server.distributed.group import SingleRank
from text_generation_server.engine.engine import Engine
from text_generation_server.engine.runner import Runner
from text_generation_server.engine.settings import EngineSettings
from text_generation_server.engine.types import Failure, PrefillCommand, Request, StoppingParams
from text_generation_server.models.loading import ModelOptions, load_model
from text_generation_server.models.step import ServedModel
from text_generation_server.sampling.params import SamplingParams
from text_generation_server.tokenization.adapter import TokenizerAdapter
from text_generation_server.weights.remote import HubSettings

DIFFERENT = 8
"""Adapters that are made; names are links to them."""

PROMPT = 16
"""Tokens of a prompt."""


@dataclass(slots=True)
class Asked:
    """One request. where: its adapter was when it came: `device`, `host` or `disk`. Times in seconds."""

    adapter: str
    where: str
    came: float
    first: float = 0.0
    ended: float = 0.0
    failed: bool = False

    @property
    def to_first_ms(self) -> float:
        """Milliseconds until its first token."""
        return (self.first - self.came) * 1e3


def main(arguments: Sequence[str] | None = None) -> None:
    """Make adapters, run the traffic, print and write what came of it."""
    options = parse(arguments)
    with tempfile.TemporaryDirectory() as folder, started(options, Path(folder)) as (engine, sources):
        asked = traffic(engine, sources, options)
    found = figures(asked, options)
    options.out.write_text(json.dumps(found, indent=2) + "\n")
    print(table(found))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="directory of a model")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--adapters", type=int, default=1000)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--places", type=int, default=32, help="adapters on the device")
    parser.add_argument("--kept", type=int, default=256, help="adapters in host memory")
    parser.add_argument("--exponent", type=float, default=1.0, help="of Zipf's law")
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--new", type=int, default=16, help="tokens of an answer")
    parser.add_argument("--out", type=Path, default=Path("adapter_traffic.json"))
    return parser.parse_args(arguments)


@contextmanager
def started(options: argparse.Namespace, folder: Path) -> Iterator[tuple[Engine, Mapping[str, AdapterSource]]]:
    """An engine, and where the adapters are that it has not read yet."""
    device = torch.device(options.device)
    directory = options.model or folder / "model"
    directory.mkdir(exist_ok=True)
    model = _model(options.model, directory, device)
    sources = save_adapters(model, folder / "adapters", options)
    settings = AdapterSettings(places=options.places, rank=options.rank, kept=options.kept)
    hub = HubSettings(folder, offline=True)
    adapters = start_adapters(settings, model.linears, model.dtype, device, hub, "base", lambda _: None)
    cuda = device.type == "cuda"
    length = PROMPT + options.new + 1
    sizes = EngineSettings(
        options.clients, 1, run_ahead=True, memory_fraction=0.5, position_limit=length,
        graphs=(1, 2, 4, 8, 16) if cuda else (),
    )  # fmt: skip
    runner = Runner(model, SingleRank(), make_stream(device), CudaRecorder if cuda else None, adapters.own)
    engine = Engine(runner, TokenizerAdapter.load(directory), sizes, adapters.registry(runner))
    engine.resize(options.clients * length, length, sizes.graphs)
    yield engine, sources
    engine.runner.close()


def _model(given: Path | None, directory: Path, device: torch.device) -> ServedModel:
    if given is None:
        return load(TINY, directory, device, None)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return load_model(directory, ModelOptions(dtype, device), SingleRank(), lambda _done, _total: None)


def save_adapters(model: ServedModel, folder: Path, options: argparse.Namespace) -> dict[str, AdapterSource]:
    """Adapters to every linear of the model, by their names."""
    shapes, sources = targets_of(model.linears).shapes, {}
    config = {"peft_type": "LORA", "r": options.rank, "lora_alpha": options.rank, "target_modules": "all-linear"}
    for number in range(DIFFERENT):
        place = folder / f"made-{number}"
        place.mkdir(parents=True)
        tensors = {}
        for name, (outputs, inputs) in shapes.items():
            for half, shape in (("A", (options.rank, inputs)), ("B", (outputs, options.rank))):
                tensors[f"base_model.model.{name}.lora_{half}.weight"] = torch.randn(shape) / 50
        save_file(tensors, place / "adapter_model.safetensors")
        (place / "adapter_config.json").write_text(json.dumps(config))
    for number in range(options.adapters):
        name = f"adapter-{number}"
        (folder / name).symlink_to(folder / f"made-{number % DIFFERENT}")
        sources[name] = AdapterSource(name, str(folder / name))
    return sources


def traffic(engine: Engine, sources: Mapping[str, AdapterSource], options: argparse.Namespace) -> list[Asked]:
    """All requests, in the order in which they came."""
    drawn, names = random.Random(1), [*sources]
    weights = [1 / rank**options.exponent for rank in range(1, len(names) + 1)]
    todo = drawn.choices(names, weights, k=options.requests)
    asked: list[Asked] = []
    running = 0
    while running or len(asked) < len(todo):
        results = []
        if running < options.clients and len(asked) < len(todo):
            name = todo[len(asked)]
            where = {status.name: status.residency for status in engine.adapters.status()}.get(name, "disk")
            asked.append(Asked(name, where, time.perf_counter()))
            running += 1
            command = PrefillCommand(len(asked), (_request(len(asked) - 1, name, options.new),), None, (), sources)
            results.append(engine.prefill(command))
        if engine.batch_ids:
            results.append(engine.decode(engine.batch_ids))
        now = time.perf_counter()
        for generation in (generation for result in results for generation in result.generations):
            one = asked[generation.request_id]
            one.first = one.first or now
            if generation.finished is not None:
                one.ended, one.failed = now, isinstance(generation.finished, Failure)
                running -= 1
    return asked


def _request(number: int, adapter: str, new: int) -> Request:
    prompt = tuple(3 + (number * 31 + at * 7) % 250 for at in range(PROMPT))
    return Request(number, prompt, SamplingParams(), StoppingParams(new, ignore_eos=True), adapter=adapter)


def figures(asked: Sequence[Asked], options: argparse.Namespace) -> dict[str, Any]:
    """Where adapters were, milliseconds to the first token by that, and what is lost."""
    counted = Counter(one.where for one in asked)
    found: dict[str, Any] = {key: str(value) for key, value in vars(options).items()}
    found["distinct"] = len({one.adapter for one in asked})
    found["lost"] = sum(one.failed or not one.ended for one in asked)
    found["seconds"] = max(one.ended for one in asked) - asked[0].came
    for where in ("device", "host", "disk"):
        times = sorted(one.to_first_ms for one in asked if one.where == where)
        found[where] = {"share": counted[where] / len(asked)} | {
            f"p{percent}": times[min(len(times) - 1, len(times) * percent // 100)] for percent in (50, 99) if times
        }
    medians = {where: found[where].get("p50") for where in ("device", "host")}
    if None not in medians.values():
        found["host_to_first_token_ms"] = medians["host"] - medians["device"]
    found["all"] = {"p99 / p50": _tail([one.to_first_ms for one in asked])}
    return found


def _tail(times: Sequence[float]) -> float:
    return statistics.quantiles(times, n=100)[98] / statistics.median(times)


def table(found: Mapping[str, Any]) -> str:
    """What was found, as Markdown."""
    lines = [
        f"{found['requests']} requests for {found['distinct']} of {found['adapters']} adapters, {found['places']} "
        f"places, {found['kept']} in memory: {found['lost']} lost, in {found['seconds']:.1f} s; "
        "milliseconds to the first token\n",
        "| where its adapter was | of requests | p50 | p99 |",
        "| --- | --- | --- | --- |",
    ]
    for where in ("device", "host", "disk"):
        one = found[where]
        if one["share"]:
            lines.append(f"| {where} | {one['share']:.3f} | {one['p50']:.1f} | {one['p99']:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
