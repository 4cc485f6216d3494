"""Where the time of a start goes: from the launcher's first moment to the router's answer, phase by phase.

Starts the launcher, its shard and its router as a user does, as often as asked for, and ends them when they are ready.
`--model-id smollm2` works anywhere. `--shape llama-3-8b` writes a config.json of that shape, and makes weights up as
they load; with `--files` it writes random weights to `--folder` first, and the files are read once more, by a plain
program, after each start. `--cold` begins with empty caches for compiled kernels and choices, and with the files out of
the page cache where the kernel lets go of them. `--stream 1000` asks for so many tokens at once and tells what the
longest waits for one were, while steps are still recorded. See docs/benchmarks.md#start.
"""

import argparse
import contextlib
import http.client
import json
import math
import os
import shlex
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from gpu_points import SHAPES, Shape
from gpu_shards import free_port
from surroundings import with_variables

BUFFER_BYTES = 16 << 20
PATIENCE_S = 900.0
SPREAD = 0.02

WORST = 8
"""Waits that are told."""


def main() -> None:
    """Measure and report."""
    options = parse()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        model, dummy = model_of(options, Path(folder))
        for number in range(options.starts):
            if options.cold and number == 0:
                evict(weights(model))
            events, waits = start(options, model, dummy, Path(folder))
            found.append({"events": events, "waits": waits, "read": plain_read(weights(model))})
            print(table(f"start {number + 1} of {options.starts}", found[-1]), flush=True)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps({"command": sys.argv[1:], "starts": found}, indent=2) + "\n")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--model-id", default="smollm2")
    what.add_argument("--shape", choices=SHAPES, help="instead of a model")
    parser.add_argument("--layers", type=int, help="of the shape, if not all")
    parser.add_argument("--files", action="store_true", help="write weights of the shape and load them")
    parser.add_argument("--cold", action="store_true", help="begin with empty caches")
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--stream", type=int, default=0, metavar="TOKENS", help="of one answer, when ready")
    parser.add_argument("--launch", type=shlex.split, default=[], metavar="'OPTION …'", help="more for the launcher")
    parser.add_argument("--folder", type=Path, help="where files are written for a while (default: as tempfile)")
    parser.add_argument("--out", type=Path, default=Path("bench-out/start.json"))
    return parser.parse_args()


def model_of(options: argparse.Namespace, folder: Path) -> tuple[str, bool]:
    """What to serve, and whether its weights are made up."""
    if options.shape is None:
        return options.model_id, False
    shape = SHAPES[options.shape]
    if options.layers is not None:
        shape = replace(shape, num_hidden_layers=options.layers)
    model = folder / options.shape
    model.mkdir()
    shape.write(model)
    if options.files:
        tokenizer(shape, model)
        write_weights(shape, model)
    return str(model), not options.files


def start(
    options: argparse.Namespace, model: str, dummy: bool, folder: Path
) -> tuple[list[dict[str, Any]], list[float]]:
    """The lines of one start that tell of a phase, with seconds since its first moment, and the waits for tokens."""
    port = free_port()
    command = [sys.executable, "-m", "text_generation_launcher", "--model-id", model, "--json-output"]
    command += ["--port", str(port), "--hostname", "127.0.0.1", "--shard-uds-path", str(folder / "s")]
    command += ["--load-format", "dummy"] if dummy else []
    caches = {"XDG_CACHE_HOME": folder / "cache", "TRITON_CACHE_DIR": folder / "triton"} if options.cold else {}
    environment = with_variables(**caches)
    began = time.perf_counter()
    events = []
    with running([*command, *options.launch], environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            fields = parsed(line)
            if fields.get("phase"):
                events.append({"at": time.perf_counter() - began, **fields})
            if fields.get("phase") == "ready":
                return events, streamed(port, options.stream) if options.stream else []
            if time.perf_counter() - began > PATIENCE_S:
                break
    raise SystemExit(f"the launch was not ready; it ended with code {process.returncode}")


def streamed(port: int, tokens: int) -> list[float]:
    """Seconds before each token of an answer."""
    asked = {"inputs": "Once upon a time", "parameters": {"max_new_tokens": tokens}}
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/generate_stream", json.dumps(asked), {"content-type": "application/json"})
    answer, told = connection.getresponse(), [time.perf_counter()]
    for line in answer:
        if line.startswith(b"data:"):
            told.append(time.perf_counter())
    return [later - earlier for earlier, later in pairwise(told)]


@contextlib.contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that is told to end, and waited for, whatever comes."""
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


def parsed(line: str) -> dict[str, Any]:
    """The fields of a line of the launcher's log."""
    try:
        fields = json.loads(line)["fields"]
    except (ValueError, KeyError, TypeError):
        return {}
    return fields if isinstance(fields, dict) else {}


def table(title: str, found: dict[str, Any]) -> str:
    """A line a phase: when it was told, and the seconds that it says it took, of which some run beside each other."""
    lines = [f"\n{title}", "| at, s | phase | took, s | |", "| ---: | --- | ---: | --- |"]
    for event in found["events"]:
        took = f"{event['seconds']:.2f}" if "seconds" in event else ""
        lines.append(f"| {event['at']:.2f} | {event['phase']} | {took} | {event['message'][:100]} |")
    if waits := sorted(found["waits"], reverse=True):
        longest = ", ".join(f"{1e3 * wait:.0f}" for wait in waits[:WORST])
        lines.append(f"\n{len(waits)} tokens: {1e3 * waits[len(waits) // 2]:.1f} ms each, at the longest {longest} ms")
    size, seconds = found["read"]
    if size:
        lines.append(
            f"\na plain read of {size / 1e9:.2f} GB of files: {seconds:.2f} s, {size / seconds / 1e9:.2f} GB/s"
        )
    return "\n".join(lines)


def weights(model: str) -> list[Path]:
    """The files of a model directory."""
    return sorted(Path(model).glob("*.safetensors"))


def plain_read(paths: list[Path]) -> tuple[int, float]:
    """Bytes and seconds, through one small buffer."""
    buffer, size, began = memoryview(bytearray(BUFFER_BYTES)), 0, time.perf_counter()
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                size += count
    return size, time.perf_counter() - began


def evict(paths: list[Path]) -> None:
    """Ask the kernel to drop files from its page cache; file systems in memory cannot."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def tokenizer(shape: Shape, directory: Path) -> None:
    """One of a token a byte, in a process of its own: a start measures what it imports."""
    code = "import sys; from text_generation_server.tokenization.made_up import made_up_tokenizer as made; "
    code += "made(int(sys.argv[1])).save(sys.argv[2])"
    subprocess.run([sys.executable, "-c", code, str(shape.vocab_size), str(directory / "tokenizer.json")], check=True)


def write_weights(shape: Shape, directory: Path) -> None:
    """A file of bfloat16 weights, the same random block again and again."""
    header: dict[str, Any] = {}
    end = 0
    for name, sizes in tensors(shape):
        begin, end = end, end + 2 * math.prod(sizes)
        header[name] = {"dtype": "BF16", "shape": sizes, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    block = random_block()
    with (directory / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for begin in range(0, end, len(block)):
            file.write(block[: end - begin])


def random_block() -> bytes:
    """64 MB of bfloat16 numbers near zero, made in a process of its own."""
    code = f"import sys, torch; x = torch.randn(1 << 25) * {SPREAD}; "
    code += "sys.stdout.buffer.write(x.bfloat16().view(torch.uint8).numpy().tobytes())"
    return subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE).stdout


def tensors(shape: Shape) -> Iterator[tuple[str, list[int]]]:
    """Names and sizes of a Llama's."""
    hidden, inner = shape.hidden_size, shape.intermediate_size
    kv = hidden // shape.num_attention_heads * shape.num_key_value_heads
    yield "model.embed_tokens.weight", [shape.vocab_size, hidden]
    for layer in range(shape.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        for name, rows in (("q", hidden), ("k", kv), ("v", kv), ("o", hidden)):
            yield f"{prefix}self_attn.{name}_proj.weight", [rows, hidden]
        yield f"{prefix}mlp.gate_proj.weight", [inner, hidden]
        yield f"{prefix}mlp.up_proj.weight", [inner, hidden]
        yield f"{prefix}mlp.down_proj.weight", [hidden, inner]
        yield f"{prefix}input_layernorm.weight", [hidden]
        yield f"{prefix}post_attention_layernorm.weight", [hidden]
    yield "model.norm.weight", [hidden]
    yield "lm_head.weight", [shape.vocab_size, hidden]


if __name__ == "__main__":
    main()
