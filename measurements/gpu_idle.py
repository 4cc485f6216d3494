"""How much of the time a GPU waits between decode steps, while a client in another process drives them one by one.

Each answer says how long the device worked on its step, by events on its stream; what is missing from the time between
the first and the last answer was spent waiting. Needs a server as gpu_serving.py starts it.
"""

import argparse
import string
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from gpu_points import SHAPES
from gpu_serving import LIMITS
from gpu_shards import serving
from text_generation_benchmark.client import ShardClient
from text_generation_benchmark.messages import Batches
from text_generation_benchmark.settings import Workload

PROMPT, NEW_TOKENS, LEFT_OUT = 10, 200, 20
"""The first steps are left out: the device works on one while the client only begins."""


def main(arguments: Sequence[str]) -> None:
    """Print a line for each batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--log", type=Path, default=Path("gpu_idle.log"))
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        SHAPES[options.shape].write(Path(folder))
        with serving(Path(folder), [], options.log) as socket, ShardClient.connect(socket) as client:
            client.clear()
            client.warm_up(LIMITS)
            for batch in options.batches:
                waited, step = idle_share(client, batch)
                print(f"batch {batch}: {step * 1e3:.3f} ms a step, {waited:.2%} of it idle", flush=True)


def idle_share(client: ShardClient, batch: int) -> tuple[float, float]:
    """The part of the time in which the device had nothing to do, and the seconds of a step."""
    workload = Workload(sequence_length=PROMPT, decode_length=NEW_TOKENS)
    (prefill,) = Batches(workload, [string.ascii_letters[:PROMPT]], client.info()).prefills(batch)
    unfinished = client.unfinished(client.prefill(prefill))
    stamps, worked = [], []
    while unfinished:
        answer = client.decode(unfinished)
        stamps.append(time.perf_counter())
        worked.append(answer.forward_s())
        unfinished = client.unfinished(answer)
    # The last answer's step was launched long before; every other one ends where its successor begins.
    counted = stamps[LEFT_OUT:-1]
    elapsed, steps = counted[-1] - counted[0], len(counted) - 1
    return 1 - sum(worked[LEFT_OUT + 1 : -1]) / elapsed, elapsed / steps


if __name__ == "__main__":
    main(sys.argv[1:])
