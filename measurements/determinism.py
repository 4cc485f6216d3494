"""Whether a request's tokens depend on what else is computed: after how many they first differ, and what it costs.

Asks the same prompts of one shard alone, in company of several sizes, and joining a running batch in chunks, greedy and
seeded, with and without `--deterministic` where that is served; both servers run side by side and are timed in turns.
Writes JSON: of each server and way of asking, the token at which each answer first differs (null: it never does).
A directory with config.json alone gets random weights: `--model-id DIR`, or `--shape` for one of gpu_points.py.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from decode_latency import model_directory
from gpu_points import SHAPES
from gpu_shards import serving
from text_generation_benchmark.client import Answer, ShardClient, WarmupLimits
from text_generation_protocol import calls
from text_generation_protocol.v3 import generate_pb2 as pb

PROMPTS = ("The history of the printing press begins with", "def fibonacci(n):", "Once upon a time, in a small village")
COMPANY = "Write a short story about the number {0} and its friends, who live by the sea. " * 2
CHUNK = 5
"""Tokens of a prompt that go into one step where it comes in chunks."""

LONGEST = 1024
"""Tokens of a prompt."""

LIMITS = WarmupLimits(max_prefill_tokens=2 * LONGEST, max_input_tokens=LONGEST, max_total_tokens=2 * LONGEST)

KINDS = {"greedy": None, "seeded": 42}
"""Ways of choosing, with their seeds."""

Tokens = list[int]


def main() -> None:
    """Measure and write."""
    options = parse()
    found: dict[str, Any] = {"dtype": options.dtype, "model": options.shape or options.model_id, "differs": {}}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if options.shape:
            SHAPES[options.shape].write(directory)
        else:
            directory = Path(options.model_id) if Path(options.model_id).is_dir() else model_directory(options.model_id)
        modes = ("default",) if options.default_only else ("default", "deterministic")
        shards = {mode: Shard(stack.enter_context(shard(directory, mode, options))) for mode in modes}
        for mode, server in shards.items():
            found["differs"][mode] = {kind: differing(server, seed, options) for kind, seed in KINDS.items()}
            options.out.write_text(json.dumps(found, indent=2) + "\n")
        found["ms"] = timed(shards, options)
        options.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-id", default="smollm2")
    parser.add_argument("--shape", choices=SHAPES)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--tokens", type=int, default=128, help="of an answer")
    parser.add_argument("--company", type=int, nargs="*", default=[1, 3, 7, 31], help="other requests in the batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--default-only", action="store_true", help="where --deterministic is refused")
    parser.add_argument("--out", type=Path, default=Path("bench-out/determinism.json"))
    return parser.parse_args()


def ways(options: argparse.Namespace) -> Iterator[tuple[str, int, bool]]:
    """Names of ways of asking, the number of others, and whether the prompt comes in chunks."""
    yield "again alone", 0, False
    yield "alone, chunks", 0, True
    for size in options.company:
        yield f"beside {size}", size, False
        yield f"beside {size}, chunks", size, True


@contextlib.contextmanager
def shard(directory: Path, mode: str, options: argparse.Namespace) -> Iterator[ShardClient]:
    """A server of its own for each mode, warmed up."""
    more = ["--dtype", options.dtype, *(["--deterministic"] if mode == "deterministic" else [])]
    weights = "auto" if any(directory.glob("*.safetensors")) else "dummy"
    log = options.out.with_suffix(f".{mode}.log")
    with tempfile.TemporaryDirectory() as folder:
        place = ["--load-format", weights]
        server = serving(directory, [*more, *place], log, prefix=Path(folder) / "shard")
        with server as path, ShardClient.connect(path) as client:
            client.warm_up(LIMITS)
            yield client


def request(id_: int, prompt: str, tokens: int, seed: int | None = None) -> pb.Request:
    """Greedy, or drawn from a seed; runs to its length."""
    chooser = calls.parameters(do_sample=seed is not None, seed=seed)
    return calls.request(prompt, LONGEST, tokens, chooser, ignore_eos=True, id=id_)


class Shard:
    """Runs one request with company; ids never come twice."""

    def __init__(self, client: ShardClient) -> None:
        self._client = client
        self._id = 0

    def answer(self, asked: pb.Request, company: int, chunked: bool, steps: list[float] | None = None) -> Tokens:
        """The tokens of a request that joins `company` others, which were there before; appends seconds a call."""
        self._id += 1000
        asked.id = self._id
        tokens: Tokens = []
        others = [request(self._id + 1 + i, COMPANY.format(i), 400) for i in range(company)]
        batches = []
        if others:
            call = pb.PrefillRequest(batch=calls.batch(self._id + 1, others))
            batches = kept(self._client.decode(kept(self._client.prefill(call))))
        if chunked:
            asked.chunk_len = CHUNK
        call = pb.PrefillRequest(batch=calls.batch(self._id, [asked]))
        began = time.perf_counter()
        answer = self._client.prefill(call)
        while True:
            if steps is not None:
                steps.append(time.perf_counter() - began)
            tokens += answer.ids(asked.id)
            if len(tokens) >= asked.stopping_parameters.max_new_tokens:
                break
            joined, batches = [*kept(answer), *batches], []
            began = time.perf_counter()
            answer = self._client.decode(joined)
        self._client.clear()
        return tokens


def kept(answer: Answer) -> list[pb.CachedBatch]:
    """What goes on after a step."""
    return [] if answer.batch is None else [answer.batch]


def differing(server: Shard, seed: int | None, options: argparse.Namespace) -> dict[str, list[int | None]]:
    """For each way of asking and prompt, how many tokens are as they were alone before the first that is not."""
    found: dict[str, list[int | None]] = {name: [] for name, _, _ in ways(options)}
    for prompt in PROMPTS:
        alone = server.answer(request(0, prompt, options.tokens, seed), 0, chunked=False)
        for name, company, chunked in ways(options):
            other = server.answer(request(0, prompt, options.tokens, seed), company, chunked)
            pairs = enumerate(zip(alone, other, strict=True))
            found[name].append(next((at for at, (one, another) in pairs if one != another), None))
    return found


def timed(shards: dict[str, Shard], options: argparse.Namespace) -> dict[str, Any]:
    """Medians in ms of a prefill and of a decode step, and the ratio to the default; servers take turns."""
    found: dict[str, Any] = {}
    for company in (0, *options.company):
        taken: dict[str, list[tuple[float, float]]] = {mode: [] for mode in shards}
        for _ in range(options.rounds):
            for mode, server in shards.items():
                steps: list[float] = []
                server.answer(request(0, COMPANY.format(0) * 4, 16), company, chunked=False, steps=steps)
                taken[mode].append((steps[0], statistics.median(steps[3:])))
        medians = {mode: [statistics.median(part) * 1e3 for part in zip(*taken[mode], strict=True)] for mode in taken}
        found[f"beside {company}"] = {
            mode: {
                "prefill_ms": prefill,
                "decode_ms": decode,
                "prefill_ratio": prefill / medians["default"][0],
                "decode_ratio": decode / medians["default"][1],
            }
            for mode, (prefill, decode) in medians.items()
        }
    return found


if __name__ == "__main__":
    main()
