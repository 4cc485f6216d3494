"""What LoRA adapters cost a step: decoding and prefilling with none, one or many distinct ones in the batch.

One model with random weights and one engine in this process, without a server around it; adapters are random numbers in
the bank. Needs no network. Prints a table in Markdown and writes every figure to a JSON file, after each of them again.
`--shape tiny --device cpu` tries it where there is no GPU.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from gpu_points import SHAPES, Shape
from text_generation_server.adapters.bank import PackedAdapter
from text_generation_server.adapters.known import AdapterFacts
from text_generation_server.adapters.loading import NO_ADAPTERS, StartedAdapters
from text_generation_server.adapters.rank import LoraAdapters
from text_generation_server.adapters.sources import AdapterSettings, AdapterSource
from text_generation_server.device.recorder import CudaRecorder
from text_generation_server.device.stream import make_stream
from text_generation_server.distributed.group import SingleRank
from text_generation_server.engine.engine import Engine
from text_generation_server.engine.runner import Runner
from text_generation_server.engine.settings import EngineSettings
from text_generation_server.engine.types import PrefillCommand, Request, StepResult, StoppingParams
from text_generation_server.models.loading import ModelOptions, load_model
from text_generation_server.models.step import ServedModel
from text_generation_server.sampling.params import SamplingParams
from text_generation_server.tokenization.adapter import TokenizerAdapter
from text_generation_server.tokenization.made_up import made_up_tokenizer

TINY = Shape(
    hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    vocab_size=300, max_position_embeddings=4096,
)  # fmt: skip
SMOLLM2 = Shape(
    hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
    vocab_size=49152, max_position_embeddings=4096,
)  # fmt: skip
ALL_SHAPES = SHAPES | {"smollm2-135m": SMOLLM2, "tiny": TINY}

PLACES = 32
"""Adapters in the bank."""

NAMES = tuple(f"adapter-{number}" for number in range(PLACES))

PROMPT = 10
"""Tokens of a prompt before decoding."""

LEFT_OUT = 10
"""Steps of each run that are not counted: clocks and caches settle."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    options = parse(arguments)
    device = torch.device(options.device)
    about: dict[str, Any] = {
        "shape": options.shape,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "places": PLACES,
    }
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        model = load(ALL_SHAPES[options.shape], Path(folder), device, options.kernels)
        tokenizer = TokenizerAdapter.load(Path(folder))
        for rank in (0, *options.ranks):
            adapters = attach(model, rank) if rank else NO_ADAPTERS
            if isinstance(adapters.own, RandomAdapters):
                about[f"put_ms of rank {rank}"] = adapters.own.put_ms()
            engine = start(model, tokenizer, adapters, options)
            for figures in measured(engine, rank, options):
                found.append(figures)
                options.out.write_text(json.dumps(about | {"figures": found}, indent=2) + "\n")
                print(json.dumps(figures), file=sys.stderr, flush=True)
            engine.runner.close()
    print(f"{about['shape']} on {about['device']}, {PLACES} adapters loaded; milliseconds a step on the device\n")
    print(table(found))
    for name, value in about.items():
        if name.startswith("put_ms"):
            print(f"\n{name}: {value:.2f}, from host memory to a place")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=ALL_SHAPES, default="llama-3-8b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--ranks", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--distinct", type=int, nargs="+", default=[0, 1, 8, 32], help="adapters in a batch; 0: none")
    parser.add_argument("--steps", type=int, default=60, help="decode steps of a run")
    parser.add_argument("--prefill", type=int, nargs=2, default=[8, 1024], help="prompts, and tokens of each")
    parser.add_argument("--kernels", type=Path, help="file that keeps choices of kernels between runs")
    parser.add_argument("--out", type=Path, default=Path("adapters.json"))
    return parser.parse_args(arguments)


def load(shape: Shape, folder: Path, device: torch.device, kernels: Path | None) -> ServedModel:
    """A model of this shape with random weights, and a tokenizer in its directory. kernels: file of their choices."""
    shape.write(folder)
    made_up_tokenizer(shape.vocab_size).save(str(folder / "tokenizer.json"))
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    options = ModelOptions(dtype, device, random_weights=True, kernel_choices=kernels)
    with torch.inference_mode():
        return load_model(folder, options, SingleRank(), lambda _done, _total: None)


class RandomAdapters(LoraAdapters):
    """Random numbers at every place, made where they are; nothing is read."""

    def __init__(self, model: ServedModel, rank: int) -> None:
        super().__init__(model.linears, PLACES, rank, model.dtype, model.device)
        self._adapter_rank = rank

    def reserve(self) -> None:
        """See `RankAdapters`."""
        super().reserve()
        (bank,) = self._banks
        bank.fill(self._adapter_rank)

    def put(self, key: int, place: int) -> None:
        """All are alike."""

    def put_ms(self) -> float:
        """Milliseconds until one adapter from host memory is at a place: what a step waits for at most."""
        (bank,), (layout,) = self._banks, self._layouts
        pinned, times = self._device.type == "cuda", []
        numbers = torch.zeros(1, layout.size, dtype=self._dtype, pin_memory=pinned)
        packed = PackedAdapter(numbers, torch.zeros(1, layout.parts, dtype=torch.int32, pin_memory=pinned))
        for _ in range(5):
            began = time.perf_counter()
            bank.put(PLACES, packed)
            if pinned:
                torch.cuda.synchronize()
            times.append((time.perf_counter() - began) * 1e3)
        bank.fill(self._adapter_rank)
        return min(times)


def attach(model: ServedModel, rank: int) -> StartedAdapters:
    """Give every linear of the model `PLACES` random adapters of this rank."""
    for linear in model.linears:
        linear.addend = None  # before the new bank is made: both may not fit
    own = RandomAdapters(model, rank)
    own.reserve()
    names = [AdapterSource(name, name) for name in NAMES]
    return StartedAdapters(own, tuple((name, AdapterFacts(rank, (), name.name)) for name in names), AdapterSettings())


def start(
    model: ServedModel, tokenizer: TokenizerAdapter, adapters: StartedAdapters, options: argparse.Namespace
) -> Engine:
    """An engine that is ready for the largest run, with its steps recorded where the device can."""
    prompts, tokens = options.prefill
    cuda = model.device.type == "cuda"
    rows, length = max(*options.batches, prompts), max(PROMPT + options.steps, tokens) + 8
    settings = EngineSettings(
        rows, 1, run_ahead=True, memory_fraction=0.9, position_limit=length,
        graphs=tuple(sorted(options.batches)) if cuda else (),
    )  # fmt: skip
    runner = Runner(model, SingleRank(), make_stream(model.device), CudaRecorder if cuda else None, adapters.own)
    engine = Engine(runner, tokenizer, settings, adapters.registry(runner))
    engine.max_prefill_tokens = max(prompts * tokens, rows * PROMPT)
    engine.resize(max(rows * (PROMPT + options.steps + 1), prompts * (tokens + 1)), length, settings.graphs)
    while engine.use_pause():
        pass
    return engine


def measured(engine: Engine, rank: int, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The figures of every mixture that this many loaded adapters allow. rank: of the adapters, 0 for none loaded."""
    prompts, tokens = options.prefill
    for distinct in options.distinct if rank else [0]:
        about = {"rank": rank, "distinct": distinct}
        if distinct <= prompts:
            prefills = [prefill_ms(engine, prompts, tokens, distinct) for _ in range(4)][1:]
            yield {"kind": "prefill", "batch": prompts, "tokens": tokens, **about, "device_ms": min(prefills)}
        for batch in options.batches:
            if distinct <= batch:
                yield {"kind": "decode", "batch": batch, **about} | decode_ms(engine, batch, distinct, options.steps)


def prefill_ms(engine: Engine, batch: int, tokens: int, distinct: int) -> float:
    """Milliseconds that the device works on one step of these prompts."""
    result = engine.prefill(PrefillCommand(0, requests(batch, tokens, 1, distinct)))
    return result.forward_ns / 1e6


def decode_ms(engine: Engine, batch: int, distinct: int, steps: int) -> dict[str, float]:
    """Milliseconds of a decode step: of the device, by its own events, of the whole engine, by the clock, and of all
    processors together, which counts where others use them too.
    """
    result = engine.prefill(PrefillCommand(0, requests(batch, PROMPT, steps, distinct)))
    device: list[float] = []
    stamps: list[float] = []
    spent: list[float] = []
    while result.batch is not None:
        result = engine.decode([0])
        device.append(_device_ms(result))
        stamps.append(time.perf_counter())
        spent.append(time.process_time())
    wall, processor = (_mean_step(times[LEFT_OUT:-1]) for times in (stamps, spent))
    return {"device_ms": statistics.median(device[LEFT_OUT:-1]), "wall_ms": wall, "cpu_ms": processor}


def _mean_step(stamps: Sequence[float]) -> float:
    return (stamps[-1] - stamps[0]) / (len(stamps) - 1) * 1e3


def _device_ms(result: StepResult) -> float:
    return result.forward_ns / 1e6


def requests(count: int, tokens: int, new: int, distinct: int) -> tuple[Request, ...]:
    """So many requests, dealt over so many of the adapters."""
    return tuple(
        Request(
            number,
            tuple(3 + (number * 31 + at * 7) % 250 for at in range(tokens)),
            SamplingParams(),
            StoppingParams(new, ignore_eos=True),
            adapter=NAMES[number % distinct] if distinct else None,
        )
        for number in range(count)
    )


def table(found: Sequence[dict[str, Any]]) -> str:
    """A line for each point: the base, and what every mixture costs beside it."""
    base = {(one["kind"], one["batch"]): one["device_ms"] for one in found if not one["rank"]}
    lines = [
        "| step | batch | rank | distinct | ms | base ms | of base |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in found:
        before = base[one["kind"], one["batch"]]
        step = one["kind"] if one["kind"] == "decode" else f"prefill of {one['tokens']}"
        mixture = "not loaded" if not one["rank"] else one["distinct"] or "none used"
        lines.append(
            f"| {step} | {one['batch']} | {one['rank'] or ''} | {mixture} | {one['device_ms']:.3f} | {before:.3f} | "
            f"{before / one['device_ms']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
