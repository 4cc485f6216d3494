"""Decode steps of the shard server, through gRPC over its Unix socket, against transformers and the memory bandwidth.

All three are measured in the same run with the same threads, in alternating rounds, so that a busy machine slows them
together. Prints a table of milliseconds a step and writes it, with every figure, to bench-out/decode_latency.json.
"""

import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import safe_open

from surroundings import with_variables
from text_generation_benchmark.client import ShardClient, WarmupLimits
from text_generation_benchmark.messages import Batches
from text_generation_benchmark.scenario import run_once
from text_generation_benchmark.settings import Workload

PROMPT = "The history of the printing press begins with"
NEW_TOKENS = 48
BATCHES = (1, 4, 8)
LIMITS = WarmupLimits(max_prefill_tokens=1024, max_input_tokens=512, max_total_tokens=1024)


def main() -> None:
    """Measure and report."""
    options = parse()
    torch.set_num_threads(options.threads)
    directory = model_directory(options.model_id)
    weight_bytes = count_parameters(directory) * getattr(torch, options.dtype).itemsize
    samples: dict[str, dict[int, list[float]]] = {name: {b: [] for b in BATCHES} for name in ("kv.run", "transformers")}
    reads: list[float] = []
    with shard(directory, options) as (client, memory):
        memory["bare"] = bare_process_bytes()
        reference = Reference(directory, options.dtype)
        workload = Workload(sequence_length=reference.prompt_tokens, decode_length=NEW_TOKENS)
        batches = Batches(workload, [PROMPT], client.info())
        for _ in range(options.rounds):
            reads += read_times(weight_bytes)
            for batch in BATCHES:
                samples["kv.run"][batch] += served_steps(client, batches, batch)
                samples["transformers"][batch] += reference.steps(batch)
    report(options, samples, weight_bytes, summary(reads), memory)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-id", default="smollm2")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("bench-out/decode_latency.json"))
    return parser.parse_args()


def count_parameters(directory: Path) -> int:
    """Numbers in all tensors of a model."""
    count = 0
    for path in directory.glob("*.safetensors"):
        with safe_open(path, framework="pt") as tensors:
            count += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return count


def model_directory(model_id: str) -> Path:
    """Where the model is after the server's own download step."""
    command = [sys.executable, "-m", "text_generation_server", "download-weights", model_id, "--json-output"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    extras = [json.loads(line)["record"]["extra"] for line in lines]
    return Path(next(extra["path"] for extra in reversed(extras) if "path" in extra))


@contextlib.contextmanager
def shard(directory: Path, options: argparse.Namespace) -> Iterator[tuple[ShardClient, dict[str, int]]]:
    """A shard server in its own process, warmed up, and the memory it had taken when its model was loaded."""
    with tempfile.TemporaryDirectory() as folder:
        prefix = f"{folder}/shard"
        command = [sys.executable, "-m", "text_generation_server", "serve", str(directory), "--uds-path", prefix]
        environment = with_variables(OMP_NUM_THREADS=options.threads)
        server = subprocess.Popen(
            [*command, "--dtype", options.dtype, "--logger-level", "WARN"], env=environment, stdin=subprocess.DEVNULL
        )
        try:
            wait_for(Path(f"{prefix}-0"), server)
            loaded = memory_use(server.pid)
            with ShardClient.connect(Path(f"{prefix}-0")) as client:
                client.warm_up(LIMITS)
                yield client, loaded
        finally:
            server.terminate()
            server.wait(20)


def wait_for(path: Path, server: subprocess.Popen[bytes]) -> None:
    """Until the socket is there."""
    while not path.exists():
        if server.poll() is not None:
            raise SystemExit(f"the shard server ended with code {server.returncode}")
        time.sleep(0.05)


def served_steps(client: ShardClient, batches: Batches, batch: int) -> list[float]:
    """Milliseconds between the answers of consecutive Decode calls."""
    return [seconds * 1e3 for seconds in run_once(client, batches.prefills(batch), NEW_TOKENS).decode_s][2:]


class Reference:
    """transformers' own `generate` on the same weights, dtype and threads."""

    def __init__(self, directory: Path, dtype: str) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._model = AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, dtype)).eval()
        self._inputs = AutoTokenizer.from_pretrained(directory)(PROMPT, return_tensors="pt").input_ids
        self.prompt_tokens = self._inputs.shape[1]

    def steps(self, batch: int) -> list[float]:
        """Milliseconds between the logits of consecutive tokens."""
        stamps: list[float] = []

        def stamp(_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            stamps.append(time.perf_counter())
            return scores

        inputs = self._inputs.expand(batch, -1)
        self._model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            do_sample=False,
            logits_processor=[stamp],
            pad_token_id=0,
        )
        return [(after - before) * 1e3 for before, after in pairwise(stamps)][1:]


def read_times(size: int) -> list[float]:
    """Milliseconds to read `size` bytes of memory, of several passes: no step that reads the weights can be faster."""
    block = torch.ones(size // 8, dtype=torch.int64)
    times = []
    for _ in range(8):
        began = time.perf_counter()
        block.sum()
        times.append((time.perf_counter() - began) * 1e3)
    return times


def bare_process_bytes() -> int:
    """Peak resident bytes of a process that has imported the server and done nothing."""
    code = "import resource, text_generation_server.serve; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout) * 1024


def memory_use(pid: int) -> dict[str, int]:
    """Peak and present resident bytes of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: int(line.split()[1]) * 1024 for line in lines for key in ("VmHWM", "VmRSS") if line.startswith(key)}


def report(
    options: argparse.Namespace,
    samples: dict[str, dict[int, list[float]]],
    weight_bytes: int,
    floor: dict[str, float],
    memory: dict[str, int],
) -> None:
    """Print the table and write the figures."""
    print(f"{options.model_id}, {options.dtype}, {options.threads} threads, weights {weight_bytes / 1e6:.0f} MB")
    print(f"floor: reading the weights once takes {floor['p50']:.1f} / {floor['p10']:.1f} ms (p50 / p10)")
    loading = (memory["VmHWM"] - memory["bare"]) / weight_bytes
    print(
        f"peak memory at load: {loading:.2f} x the weights beyond the bare process of {memory['bare'] / 1e6:.0f} MB\n"
    )
    print(
        "| batch | kv.run ms (p50 / p10) | transformers ms (p50 / p10) | speed-up (p50 / p10) | x floor (p50 / p10) |"
    )
    print("| --- | --- | --- | --- | --- |")
    rows = []
    for batch in BATCHES:
        ours, theirs = (summary(samples[name][batch]) for name in ("kv.run", "transformers"))
        rows.append({"batch": batch, "kv.run": ours, "transformers": theirs})
        pairs = [(ours[q], theirs[q]) for q in ("p50", "p10")]
        print(
            f"| {batch} | {pairs[0][0]:.1f} / {pairs[1][0]:.1f} | {pairs[0][1]:.1f} / {pairs[1][1]:.1f} "
            f"| {pairs[0][1] / pairs[0][0]:.2f} / {pairs[1][1] / pairs[1][0]:.2f} "
            f"| {pairs[0][0] / floor['p50']:.2f} / {pairs[1][0] / floor['p10']:.2f} |"
        )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    facts = {"floor": floor, "weight_bytes": weight_bytes, "memory": memory, "rows": rows}
    options.out.write_text(json.dumps({**facts, "threads": options.threads, "dtype": options.dtype}, indent=2))
    print(f"\nwritten to {options.out}")


def summary(values: list[float]) -> dict[str, float]:
    """Quantiles of the steps."""
    cuts = statistics.quantiles(values, n=10)
    return {"min": min(values), "p10": cuts[0], "p50": statistics.median(values), "p90": cuts[-1], "steps": len(values)}


if __name__ == "__main__":
    main()
