"""Decode steps of models that keep other states than keys and values, against the memory floor; encoders too.

For one GPU, with made-up weights in bfloat16. The floor is what a step must move: all weights once, and what is kept of
each row read, and written where it is rewritten whole; by the bytes a second that a large sum over memory reaches here.
Prints a table; with --peer an encoder's model is timed through transformers as well.
"""

import argparse
import functools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from text_generation_server.cache.layout import RowLayout
from text_generation_server.cache.rows import RowTable
from text_generation_server.cache.states import State, allocate
from text_generation_server.device.recorder import CudaRecorder
from text_generation_server.distributed.group import SingleRank
from text_generation_server.models.loading import ModelOptions, load_model
from text_generation_server.models.step import ServedModel, SourceInput, StepBuilder, forward

SHAPES: Mapping[str, Mapping[str, Any]] = {
    "mamba-2.8b": {
        "model_type": "mamba", "vocab_size": 50280, "hidden_size": 2560, "num_hidden_layers": 64, "state_size": 16,
    },
    "mamba2-2.7b": {
        "model_type": "mamba2", "vocab_size": 50288, "hidden_size": 2560, "num_hidden_layers": 64, "state_size": 128,
        "num_heads": 80, "head_dim": 64, "n_groups": 1, "tie_word_embeddings": True,
    },
    "granite-4-h-micro": {
        "model_type": "granitemoehybrid", "vocab_size": 100352, "hidden_size": 2048, "num_hidden_layers": 40,
        "intermediate_size": 8192, "shared_intermediate_size": 8192, "num_attention_heads": 32,
        "num_key_value_heads": 8, "mamba_n_heads": 64, "mamba_d_state": 128, "num_local_experts": 0,
        "num_experts_per_tok": 0, "tie_word_embeddings": True,
        "layer_types": ["attention" if layer in (5, 15, 25, 35) else "mamba" for layer in range(40)],
    },
    "flan-t5-xl": {
        "model_type": "t5", "vocab_size": 32128, "d_model": 2048, "d_kv": 64, "d_ff": 5120, "num_heads": 32,
        "num_layers": 24, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
    },
    "tiny-mamba": {
        "model_type": "mamba", "vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4,
    },
    "tiny-t5": {
        "model_type": "t5", "vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_heads": 4, "num_layers": 2,
    },
}  # fmt: skip

CONTEXT = 64
"""Position of the token that is decoded."""

SOURCE = 512
"""Tokens that an encoder read for each row."""

REPLAYS = 50


def main(arguments: Sequence[str]) -> None:
    """Measure and report."""
    options = parse(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(SHAPES[options.shape]))
        model = load_model(Path(folder), _options(device, options.kernels), SingleRank(), lambda _done, _total: None)
        weights = decoded_bytes(SHAPES[options.shape]) or (
            torch.cuda.memory_allocated() if device.type == "cuda" else 0
        )
        bytes_a_second = read_speed(device)
        for rows in options.rows:
            ms = decode_ms(model, rows, device)
            floor = (weights + rows * row_bytes(model)) / bytes_a_second * 1e3
            found[f"decode, {rows} rows"] = ms
            print(f"{options.shape}: {rows} rows {ms:.3f} ms, floor {floor:.3f} ms, {floor / ms:.2f} of it", flush=True)
        if model.encoder is not None:
            for count, length in ((1, SOURCE), (16, 128)):
                found[f"encoder, {count}x{length}"] = ms = encoder_ms(model, count, length, device)
                print(f"{options.shape}: encoder {count}x{length} {ms:.3f} ms", flush=True)
        print(json.dumps({"shape": options.shape, "weights": weights, "bytes_a_second": bytes_a_second, "ms": found}))
        del model
        for compiled in options.peer:
            peer(SHAPES[options.shape], options.rows, device, compiled == "compiled")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--rows", type=lambda text: [*map(int, text.split(","))], default=[1, 32, 128])
    parser.add_argument("--kernels", type=Path, help="where the choice of kernels is kept")
    parser.add_argument("--peer", nargs="*", choices=["eager", "compiled"], default=[], help="time transformers too")
    return parser.parse_args(arguments)


def _options(device: torch.device, kernels: Path | None) -> ModelOptions:
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return ModelOptions(dtype, device, random_weights=True, kernel_choices=kernels)


def decoded_bytes(config: Mapping[str, Any]) -> int:
    """Of the weights that a decoder beside an encoder reads in a step; 0 where all weights are read."""
    if "d_model" not in config:
        return 0
    width, heads, inner = config["d_model"], config["d_kv"] * config["num_heads"], config["d_ff"]
    gated = "gated" in config.get("feed_forward_proj", "")
    return 2 * (width * config["vocab_size"] + config["num_layers"] * width * (6 * heads + (3 if gated else 2) * inner))


def row_bytes(model: ServedModel) -> int:
    """That a step moves for a row: its state read and written, its tokens' keys and values and its source's read."""
    slots = CONTEXT + (0 if model.encoder is None else SOURCE)
    return sum(2 * spec.bytes_per_row + slots * spec.bytes_per_slot for spec in model.states)


def read_speed(device: torch.device) -> float:
    """Bytes a second of a sum over more memory than any cache holds."""
    numbers = torch.ones(1 << (29 if device.type == "cuda" else 20), dtype=torch.float32, device=device)
    return numbers.nbytes / timed(lambda: numbers.sum(), device) * 1e3


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Milliseconds, the least of three times as many as are needed to be exact."""
    if device.type == "cpu":
        began = time.perf_counter()
        work()
        return (time.perf_counter() - began) * 1e3
    work()
    found = []
    for _ in range(3):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(REPLAYS):
            work()
        last.record()
        last.synchronize()
        found.append(first.elapsed_time(last) / REPLAYS)
    return min(found)


class Rows:
    """A model with so many rows, each with a source where it has an encoder."""

    def __init__(self, model: ServedModel, rows: int, device: torch.device) -> None:
        self.model, self.rows, self.device = model, rows, device
        longest = max(CONTEXT, SOURCE) + 1
        sources = 0 if model.encoder is None else SOURCE
        self.states: tuple[State, ...] = allocate(model.states, rows * (CONTEXT + sources), rows, longest)
        self.table = RowTable(rows, longest, device)
        self.table.admit(range(rows), [range(row * CONTEXT, (row + 1) * CONTEXT) for row in range(rows)])
        self.numbers = torch.arange(rows, device=device)
        for state in self.states:
            state.admit(self.numbers)
        if sources:
            self.encode(rows, sources)

    def encode(self, count: int, length: int) -> None:
        """The encoder on so many sources."""
        assert self.model.encoder is not None
        ids = torch.randint(3, self.model.vocab_size, (count * length,), device=self.device)
        slots = self.rows * CONTEXT + torch.arange(count * length, device=self.device)
        self.model.encoder(SourceInput(range(count), [length] * count, ids, slots), self.states)

    def step(self) -> Callable[[], Tensor]:
        """A decode step, recorded where the device can."""
        model, build = self.model, StepBuilder(self.table, self.states)
        lens = torch.full((self.rows,), CONTEXT, device=self.device)
        layout = RowLayout.of(range(self.rows), [1] * self.rows, [CONTEXT] * self.rows, self.table.block_table)
        if self.device.type == "cpu":
            prepared = model.prepare(layout)
            return lambda: forward(model, build(build.newest(self.numbers), lens - 1, self.numbers, prepared))
        *_, plan = model.decode_plans(self.numbers, lens, self.table.block_table)
        plan.prepare([CONTEXT] * self.rows)
        return CudaRecorder().record(
            lambda: forward(model, build(build.newest(self.numbers), lens - 1, self.numbers, plan))
        )


@torch.inference_mode()
def decode_ms(model: ServedModel, rows: int, device: torch.device) -> float:
    """Of a step."""
    return on_stream(lambda: timed(Rows(model, rows, device).step(), device), device)


@torch.inference_mode()
def encoder_ms(model: ServedModel, count: int, length: int, device: torch.device) -> float:
    """Of so many sources read at once."""
    rows = Rows(model, max(count, count * length // SOURCE + 1), device)
    return on_stream(lambda: timed(lambda: rows.encode(count, length), device), device)


def on_stream(work: Callable[[], float], device: torch.device) -> float:
    """Done on a stream that can be recorded."""
    if device.type == "cpu":
        return work()
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        return work()


@torch.inference_mode()
def peer(config: Mapping[str, Any], rows: Sequence[int], device: torch.device, compiled: bool) -> None:
    """The same through transformers: milliseconds a token between answers of 16 and of 48 tokens, and its encoder."""
    from transformers import AutoConfig, AutoModelForSeq2SeqLM
    from transformers.modeling_outputs import BaseModelOutput

    values = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device(device):
        made = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(config["model_type"], **values))
    model = made.to(torch.bfloat16).eval()
    name = "transformers, compiled with a static cache" if compiled else "transformers"
    for count, length in ((1, SOURCE), (16, 128)):
        ids = torch.randint(3, config["vocab_size"], (count, length), device=device)
        encoder = torch.compile(model.encoder) if compiled else model.encoder
        print(f"{name}: encoder {count}x{length} {timed(functools.partial(encoder, input_ids=ids), device):.3f} ms")
    for count in rows:
        read = BaseModelOutput(torch.randn(count, SOURCE, config["d_model"], dtype=torch.bfloat16, device=device))
        told = {"cache_implementation": "static"} if compiled else {}

        def answer(tokens: int, read: BaseModelOutput = read, told: Mapping[str, str] = told) -> float:
            began = time.perf_counter()
            model.generate(
                encoder_outputs=read, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False,
                decoder_start_token_id=0, **told,
            )  # fmt: skip
            torch.cuda.synchronize()
            return time.perf_counter() - began

        for tokens in (16, 48):
            answer(tokens)
        print(f"{name}: {count} rows {(answer(48) - answer(16)) / 32 * 1e3:.3f} ms a token", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
