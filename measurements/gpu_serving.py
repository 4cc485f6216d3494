"""This server on a GPU: shapes of known models with random weights, through gRPC over the Unix socket.

`run` starts a server in a process of its own, drives it as a router does, stops it and writes JSON. `table` prints
such a file beside a peer's, which gpu_peer.py writes. See docs/benchmarks.md.
"""

import argparse
import contextlib
import json
import random
import shlex
import string
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gpu_points
from gpu_points import MAX_PREFILL_TOKENS, MAX_TOTAL_TOKENS, SHAPES, Points, Shape
from gpu_shards import serving
from gpu_table import tables
from text_generation_benchmark.client import ShardClient, ShardInfo, WarmupLimits
from text_generation_benchmark.messages import Batches
from text_generation_benchmark.scenario import run_once
from text_generation_benchmark.settings import Workload

LIMITS = WarmupLimits(MAX_PREFILL_TOKENS, MAX_TOTAL_TOKENS - 1, MAX_TOTAL_TOKENS)


def main(arguments: Sequence[str]) -> None:
    """Measure, or print tables."""
    options = _parser().parse_args(arguments)
    if options.command == "table":
        print(tables(*(json.loads(path.read_text()) for path in (options.ours, options.peer))))
        return
    engine = "kv.run" if options.num_shard == 1 else f"kv.run, {options.num_shard} GPUs"
    about = {"engine": engine, "shape": options.shape, "serve": options.serve}
    points = Points.chosen(options)
    measure(SHAPES[options.shape], points, LIMITS, options.serve, options.out, about, options.num_shard)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="start a server, measure, write JSON, and the server's log beside it")
    gpu_points.add_options(run)
    run.add_argument(
        "--serve", type=shlex.split, default=[], metavar="'OPTION …'", help="more of text-generation-server serve"
    )
    run.add_argument("--num-shard", type=int, default=1, metavar="N", help="GPUs that share the model")
    table = commands.add_parser("table", help="print figures beside a peer's as Markdown")
    table.add_argument("ours", type=Path)
    table.add_argument("peer", type=Path)
    return parser


def measure(
    shape: Shape,
    points: Points,
    limits: WarmupLimits,
    serve: Sequence[str],
    out: Path,
    about: Mapping[str, Any],
    shards: int = 1,
) -> None:
    """Write all figures of a shape to `out`, and the server's output beside it.

    start_s: from the server's start to its socket; warmup_s: from there until it may be used.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        directory = Path(folder)
        shape.write(directory)
        began = time.perf_counter()
        socket = stack.enter_context(serving(directory, serve, out.with_suffix(".log"), shards))
        started = time.perf_counter()
        client = stack.enter_context(ShardClient.connect(socket))
        client.clear()
        shard = client.info()
        fitting = client.warm_up(limits)
        seconds = {"start_s": started - began, "warmup_s": time.perf_counter() - started}
        found = {**about, **seconds, "fitting_tokens": fitting, "shard": asdict(shard)}
        gpu_points.record(out, found, points, Driver(client, shard, limits.max_prefill_tokens).generate)


class Driver:
    """Runs batches of random prompts on a shard whose bare model has bytes for tokens."""

    def __init__(self, client: ShardClient, shard: ShardInfo, max_prefill_tokens: int) -> None:
        self._letters = random.Random(0)
        self._client = client
        self._shard = shard
        self._max_prefill_tokens = max_prefill_tokens

    def generate(self, batch: int, prompt: int, new_tokens: int) -> float:
        """Seconds from the first Prefill to the last token."""
        workload = Workload(
            sequence_length=prompt, decode_length=new_tokens, max_batch_prefill_tokens=self._max_prefill_tokens
        )
        prompts = ["".join(self._letters.choices(string.ascii_letters, k=prompt)) for _ in range(batch)]
        prefills = Batches(workload, prompts, self._shard).prefills(batch)
        return run_once(self._client, prefills, new_tokens).total_s


if __name__ == "__main__":
    main(sys.argv[1:])
