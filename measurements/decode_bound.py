"""What a decode step on a CPU cannot be faster than: its products alone, beside reading the weights once.

Random weights of the shapes of SmolLM2-135M, as a server multiplies them. All takes turns in the same process. For
machines that others use too the least of many rounds counts, of the clock's time and of the processors'.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from text_generation_server.quantization.dense import dense_kernel

LAYER = ((960, 576), (576, 576), (3072, 576), (576, 1536))
LAYERS = 30
HEAD = (49152, 576)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("bench-out/decode_bound.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with torch.inference_mode():
        size, works = prepared(getattr(torch, options.dtype))
        found = rounds(works, options.rounds)
    report(options, size, found)


def prepared(dtype: torch.dtype) -> tuple[int, dict[str, Callable[[], object]]]:
    """Bytes of all weights, and what is timed."""
    shapes = [*LAYER * LAYERS, HEAD]
    weights = [torch.randn(shape).to(dtype) for shape in shapes]
    kernels = [dense_kernel(weight, None) for weight in weights]
    token = {width: torch.randn(1, width).to(dtype) for width in (576, 1536)}
    size = sum(weight.nbytes for weight in weights)
    block = torch.ones(size // 8, dtype=torch.int64)
    return size, {
        "read": block.sum,
        "products": lambda: [kernel(token[width]) for kernel, (_, width) in zip(kernels, shapes, strict=True)],
        "plain products": lambda: [F.linear(token[weight.shape[1]], weight) for weight in weights],
    }


def rounds(works: dict[str, Callable[[], object]], count: int) -> dict[str, dict[str, float]]:
    """The least milliseconds of each, by the clock and of the processors."""
    least: dict[str, dict[str, float]] = {name: {"clock": float("inf"), "processors": float("inf")} for name in works}
    for _ in range(count):
        for name, work in works.items():
            clock, processors = time.perf_counter(), time.process_time()
            work()
            taken = {"clock": time.perf_counter() - clock, "processors": time.process_time() - processors}
            least[name] = {kind: min(least[name][kind], seconds * 1e3) for kind, seconds in taken.items()}
    return least


def report(options: argparse.Namespace, size: int, found: dict[str, dict[str, float]]) -> None:
    """Print the table and write the figures."""
    print(f"{options.dtype}, {options.threads} threads, {size / 1e6:.0f} MB of weights, least of {options.rounds}\n")
    print("| | ms | x read | processors' ms | x read |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, least in found.items():
        cells = [f"{least[kind]:.1f} | {least[kind] / found['read'][kind]:.2f}" for kind in ("clock", "processors")]
        print(f"| {name} | {' | '.join(cells)} |")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    facts = {"dtype": options.dtype, "threads": options.threads, "bytes": size, "least_ms": found}
    options.out.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
