"""Loading a checkpoint of random weights against a plain read of as many bytes of its files, and the memory it takes.

All is measured in the same process, in alternating rounds, so that a busy machine slows it together, with the files in
the page cache and, where the kernel lets go of them, from the disk. Each rank is measured alone, in a new process.
Prints a table and writes it, with every figure, to bench-out/loading.json:

peak: bytes that loading adds to the process at most, mapped files included, against the rank's part of the weights.
scan: a read through one small buffer. read: one into memory, as loading must. load: as a server loads.
unpacked: the same without oneDNN's order of weights, which is what remains on other devices before the copy to them.
With --processor-time the least processor time of all rounds counts, not the median of the clock's: for machines that
others use too.
disk bytes: what the kernel fetches in a cold load, against the part; larger where a matrix is cut along its rows.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from loguru import logger
from safetensors import safe_open

from text_generation_server.distributed.group import SingleRank
from text_generation_server.models.loading import ModelOptions, load_model

SHAPES: dict[str, dict[str, Any]] = {
    "llama": {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 10,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
    },
    "smollm2": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
}
"""Sizes of Llama models: 1.2 GB in bfloat16, with fewer layers in float32, and the model that the server embeds."""

SHARD_SIZE = "250MB"
BUFFER_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Case:
    """One rank to be measured, in a directory with weights of this type, which is also the one it computes in."""

    directory: Path
    dtype: str
    rank: int
    world_size: int
    threads: int
    rounds: int
    processor_time: bool = False


class Rank(SingleRank):
    """A rank whose others are not there: loading exchanges nothing."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank = rank
        self.world_size = world_size


def main() -> None:
    """Measure and report."""
    options = parse()
    rows = []
    for shape in options.shapes:
        for dtype in options.dtypes:
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                write_checkpoint(Path(folder), shape, dtype)
                for rank, world_size in ranks(shape):
                    case = Case(
                        Path(folder), dtype, rank, world_size, options.threads, options.rounds, options.processor_time
                    )
                    rows.append({"shape": shape, "dtype": dtype, "rank": f"{rank} of {world_size}", **fresh(case)})
    report(options, rows)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"], choices=["bfloat16", "float32"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processor-time", action="store_true", help="count it, not the clock's")
    parser.add_argument("--folder", type=Path, help="where checkpoints are written for a while (default: as tempfile)")
    parser.add_argument("--out", type=Path, default=Path("bench-out/loading.json"))
    return parser.parse_args()


def ranks(shape: str) -> list[tuple[int, int]]:
    """One rank alone, then each of two, where two can divide the heads."""
    return [(0, 1), (0, 2), (1, 2)] if SHAPES[shape]["num_attention_heads"] % 2 == 0 else [(0, 1)]


def write_checkpoint(directory: Path, shape: str, dtype: str) -> None:
    """Random weights in several safetensors files with an index, on the disk."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    sizes = dict(SHAPES[shape])
    if shape == "llama" and dtype == "float32":
        sizes["num_hidden_layers"] //= 2
    config = LlamaConfig(**sizes)
    LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(directory, max_shard_size=SHARD_SIZE)
    for path in files(directory):
        with path.open("rb") as file:
            os.fsync(file.fileno())


def fresh(case: Case) -> dict[str, Any]:
    """What `measure` gives in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, case).result()


def measure(case: Case) -> dict[str, Any]:
    """Seconds of every round of every measurement, and bytes."""
    logger.remove()
    torch.set_num_threads(case.threads)
    size = part_bytes(case)
    before = reset_peak()
    load(case)
    peak = peak_bytes() - before
    seconds: dict[str, list[float]] = {}
    for _ in range(case.rounds):
        for name, step in steps(case, size).items():
            seconds.setdefault(name, []).append(timed(step, case.processor_time))
    disk = []
    for _ in range(case.rounds):
        for name, step in steps(case, size, "read", "load").items():
            evict(case.directory)
            began = disk_bytes()
            seconds.setdefault(f"cold {name}", []).append(timed(step, case.processor_time))
            if name == "load":
                disk.append(disk_bytes() - began)
    return {"bytes": size, "peak": peak, "disk": statistics.median(disk), "seconds": seconds}


def steps(case: Case, size: int, *only: str) -> dict[str, Callable[[], object]]:
    """What is timed, in this order."""

    def plain() -> object:
        # What is left on a device whose kernels take weights as they are.
        with patch("text_generation_server.quantization.dense.can_pack", lambda *_: False):
            return load(case)

    every: dict[str, Callable[[], object]] = {
        "scan": lambda: scan(case.directory, size),
        "read": lambda: read(case.directory, size),
        "load": lambda: load(case),
        "load unpacked": plain,
    }
    return {name: every[name] for name in only or every}


def load(case: Case) -> object:
    """This rank's part of the model, as a server loads it."""
    options = ModelOptions(getattr(torch, case.dtype), torch.device("cpu"))
    return load_model(case.directory, options, Rank(case.rank, case.world_size), lambda _done, _total: None)


def read(directory: Path, size: int) -> object:
    """The first `size` bytes of the files, in memory."""
    kept = []
    for path in files(directory):
        with path.open("rb", buffering=0) as file:
            kept.append(file.read(size))
        size -= len(kept[-1])
    return kept


def scan(directory: Path, size: int) -> None:
    """The same bytes through one buffer; none are kept."""
    buffer = memoryview(bytearray(BUFFER_BYTES))
    for path in files(directory):
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer[:size]):
                size -= count


def timed(step: Callable[[], object], processor_time: bool) -> float:
    """Seconds until the result is there; letting go of it is not counted."""
    clock = time.process_time if processor_time else time.perf_counter
    began = clock()
    result = step()
    seconds = clock() - began
    del result
    return seconds


def files(directory: Path) -> list[Path]:
    """The weights."""
    return sorted(directory.glob("*.safetensors"))


def part_bytes(case: Case) -> int:
    """Bytes of the checkpoint that a rank computes with: its part of each matrix, and every vector."""
    total = 0
    for path in files(case.directory):
        with safe_open(path, framework="pt") as tensors:
            views = [tensors.get_slice(name) for name in tensors.keys()]  # noqa: SIM118
            shapes = [view.get_shape() for view in views]
        for shape in shapes:
            total += shape[0] if len(shape) == 1 else shape[0] * shape[1] // case.world_size
    return total * getattr(torch, case.dtype).itemsize


def evict(directory: Path) -> None:
    """Ask the kernel to drop the files from its page cache; file systems in memory cannot."""
    for path in files(directory):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def disk_bytes() -> int:
    """Bytes that the kernel has fetched from disks for this process."""
    return int(field(Path("/proc/self/io"), "read_bytes"))


def peak_bytes() -> int:
    """The most that this process has had in memory since `reset_peak`, pages of mapped files included."""
    return int(field(Path("/proc/self/status"), "VmHWM").split()[0]) * 1024


def reset_peak() -> int:
    """Start the peak anew; returns the bytes in memory now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def field(path: Path, name: str) -> str:
    """The value behind `name:` in a file of /proc."""
    return next(line for line in path.read_text().splitlines() if line.startswith(f"{name}:")).split(":")[1]


def report(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Print the table and write the figures."""
    how = "least processor time" if options.processor_time else "median"
    loads = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{options.threads} threads, {options.rounds} rounds, load averages {loads}; GB/s ({how} x the read)\n")
    print("| weights | rank | MB | peak | scan | read | load | unpacked | cold read | cold load | disk bytes |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        size = row["bytes"]
        cells = [f"{row['shape']} {row['dtype']}", row["rank"], f"{size / 1e6:.0f}", f"{row['peak'] / size:.2f} x"]
        cells += [rate(row, name, "read", options.processor_time) for name in ("scan", "read", "load", "load unpacked")]
        cells += [rate(row, name, "cold read", options.processor_time) for name in ("cold read", "cold load")]
        cells.append(f"{row['disk'] / size:.2f} x")
        print(f"| {' | '.join(cells)} |")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    facts = {"threads": options.threads, "load_averages": os.getloadavg(), "rows": rows}
    options.out.write_text(json.dumps(facts, indent=2))
    print(f"\nwritten to {options.out}")


def rate(row: dict[str, Any], name: str, against: str, least: bool) -> str:
    """Median GB/s, and the median over rounds of the ratio to the read of the same round; or both by the least."""
    times, base = row["seconds"][name], row["seconds"][against]
    if least:
        times, base = [min(times)], [min(base)]
    text = f"{row['bytes'] / statistics.median(times) / 1e9:.2f}"
    if name == against:
        return text
    return f"{text} ({statistics.median(other / own for own, other in zip(times, base, strict=True)):.2f} x)"


if __name__ == "__main__":
    main()
