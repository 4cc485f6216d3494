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
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gpu_points
from gpu_points import MAX_PREFILL_TOKENS, MAX_TOTAL_TOKENS, SHAPES, Points, Shape
from gpu_table import tables
from text_generation_benchmark.client import ShardClient, ShardInfo
from text_generation_benchmark.messages import Batches, Limits, warmup_request
from text_generation_benchmark.scenario import run_once
from text_generation_benchmark.settings import Workload

LIMITS = Limits(MAX_PREFILL_TOKENS, MAX_TOTAL_TOKENS - 1, MAX_TOTAL_TOKENS)

STOP_S = 30.0


def main(arguments: Sequence[str]) -> None:
    """Measure, or print tables."""
    options = _parser().parse_args(arguments)
    if options.command == "table":
        print(tables(*(json.loads(path.read_text()) for path in (options.ours, options.peer))))
        return
    about = {"engine": "kv.run", "shape": options.shape, "serve": options.serve}
    measure(SHAPES[options.shape], Points.chosen(options), LIMITS, options.serve, options.out, about)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="start a server, measure, write JSON, and the server's log beside it")
    gpu_points.add_options(run)
    run.add_argument(
        "--serve", type=shlex.split, default=[], metavar="'OPTION …'", help="more of text-generation-server serve"
    )
    table = commands.add_parser("table", help="print figures beside a peer's as Markdown")
    table.add_argument("ours", type=Path)
    table.add_argument("peer", type=Path)
    return parser


def measure(
    shape: Shape, points: Points, limits: Limits, serve: Sequence[str], out: Path, about: Mapping[str, Any]
) -> None:
    """Write all figures of a shape to `out`, and the server's output beside it.

    start_s: from the server's start to its socket; warmup_s: from there until it may be used.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        directory = Path(folder)
        shape.write(directory)
        began = time.perf_counter()
        socket = stack.enter_context(serving(directory, serve, out.with_suffix(".log")))
        started = time.perf_counter()
        client = stack.enter_context(ShardClient.connect(socket))
        client.clear()
        shard = client.info()
        fitting = client.warm_up(warmup_request(limits))
        seconds = {"start_s": started - began, "warmup_s": time.perf_counter() - started}
        found = {**about, **seconds, "fitting_tokens": fitting, "shard": asdict(shard)}
        gpu_points.record(out, found, points, Driver(client, shard, limits.max_prefill_tokens).generate)


@contextlib.contextmanager
def serving(directory: Path, options: Sequence[str], log: Path) -> Iterator[Path]:
    """A server's socket, from when it is there. The server is stopped by its pid; its output is in `log`."""
    command = [sys.executable, "-m", "text_generation_server", "serve", str(directory), "--load-format", "dummy"]
    command += ["--dtype", "bfloat16", "--uds-path", str(directory / "shard"), *options]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        socket = directory / "shard-0"
        while not socket.exists():
            if server.poll() is not None:
                raise SystemExit(f"the server ended with code {server.returncode}:\n{log.read_text()[-2000:]}")
            time.sleep(0.02)
        yield socket
    finally:
        server.terminate()
        try:
            server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


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
