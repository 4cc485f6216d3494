"""Whether guessing tokens pays: decoding with `--speculate` and without, two servers side by side, asked in turns.

Prompts come in three kinds: code to be given back with a change and a list to be put in order, where answers repeat
them; and stories, where they do not. Prints a table: milliseconds a token of a row, tokens a step, and the ratio.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from decode_latency import model_directory
from gpu_shards import serving
from text_generation_benchmark.client import ShardClient, WarmupLimits
from text_generation_protocol import calls
from text_generation_protocol.v3 import generate_pb2 as pb

LONGEST = 1024
LIMITS = WarmupLimits(max_prefill_tokens=8 * LONGEST, max_input_tokens=LONGEST, max_total_tokens=2 * LONGEST)

CODE = """def total(prices, tax):
    result = 0
    for price in prices:
        result += price * (1 + tax)
    return result

def average(prices, tax):
    return total(prices, tax) / len(prices)
"""
LINES = "\n".join(
    f"{day} {month}: the ship sailed from the harbour" for month in ("May", "June") for day in range(1, 9)
)
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
KINDS = {
    "code": f"Rename tax to rate in this code and give it back:\n```python\n{CODE}```",
    "list": f"Repeat this list:\n{LINES}",
    "story": "Write a story about a lighthouse keeper who finds a letter.",
}


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-id", default="smollm2")
    parser.add_argument("--dtype", default="float32", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--speculate", type=int, default=4)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=128, help="of an answer")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    given = Path(options.model_id)
    directory = given if given.is_dir() else model_directory(options.model_id)
    with contextlib.ExitStack() as stack:
        common = ["--dtype", options.dtype]
        plain = stack.enter_context(shard(directory, common))
        guessing = stack.enter_context(shard(directory, [*common, "--speculate", str(options.speculate)]))
        print(
            "| text | rows | ms a token without | with | tokens a step | times as fast |", "| --- " * 6 + "|", sep="\n"
        )
        for kind, prompt in KINDS.items():
            for rows in options.rows:
                taken = [
                    (timed(plain, prompt, rows, options.tokens), timed(guessing, prompt, rows, options.tokens))
                    for _ in range(options.rounds)
                ]
                (without, _), (with_, steps) = (min(runs) for runs in zip(*taken, strict=True))
                figures = (
                    f"{without * 1e3:.2f} | {with_ * 1e3:.2f} | {options.tokens / steps:.2f} | {without / with_:.2f}"
                )
                print(f"| {kind} | {rows} | {figures} |", flush=True)


@contextlib.contextmanager
def shard(directory: Path, more: Sequence[str]) -> Iterator[ShardClient]:
    """A server of its own, warmed up."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        weights = "auto" if any(directory.glob("*.safetensors")) else "dummy"
        server = serving(directory, [*more, "--load-format", weights], place / "log", prefix=place / "shard")
        with server as path, ShardClient.connect(path) as client:
            client.warm_up(LIMITS)
            yield client


def timed(client: ShardClient, prompt: str, rows: int, tokens: int) -> tuple[float, int]:
    """Seconds a token of each row, and the steps it took, from the first token on; rows differ in their beginning."""
    texts = [CHAT.format(f"{prompt} ({row + 1})") for row in range(rows)]
    requests = [
        calls.request(text, LONGEST, tokens, calls.parameters(), ignore_eos=True, id=id_)
        for id_, text in enumerate(texts)
    ]
    answer = client.prefill(pb.PrefillRequest(batch=calls.batch(0, requests)))
    began, steps = time.perf_counter(), 0
    while unfinished := client.unfinished(answer):
        answer = client.decode(unfinished)
        steps += 1
    client.clear()
    return (time.perf_counter() - began) / (tokens - 1), steps


if __name__ == "__main__":
    main(sys.argv[1:])
