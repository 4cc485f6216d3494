"""Weights of few bits on one GPU: decode steps, prefills and single products, beside bfloat16 and the memory's floor.

A model of a known shape is made in place with random weights, in each form by itself, as a shard would load it; steps
are recorded and replayed as an engine does, and timed by the device. Before that every kernel is compared with its
twin in torch. What fails is told, and the next form follows. See docs/quantization.md.
"""

import argparse
import gc
import json
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gpu_points import SHAPES, Shape
from text_generation_server.architectures.registry import read_spec
from text_generation_server.attention.base import AUTO
from text_generation_server.cache.layout import RowLayout
from text_generation_server.cache.paged import PagedCache
from text_generation_server.cache.rows import RowTable
from text_generation_server.cache.states import allocate
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.device.recorder import CudaRecorder
from text_generation_server.distributed.group import SingleRank
from text_generation_server.kernels.matmul.config import CUBLAS, packed_candidates
from text_generation_server.kernels.matmul.packed import UNIT, Code, PackedWeight, packed
from text_generation_server.models.build import DecoderBuilder
from text_generation_server.models.decoder import Decoder
from text_generation_server.models.step import StepBuilder, StepInput, forward
from text_generation_server.models.tensors import TensorReader
from text_generation_server.quantization.dense import DenseScheme
from text_generation_server.quantization.formats.made import NF4
from text_generation_server.quantization.formats.table import scheme_of
from text_generation_server.quantization.tuning import MatmulTuner
from text_generation_server.specs.decoder import DecoderSpec
from text_generation_server.weights.random import RandomCheckpoint

TINY = Shape(
    hidden_size=256, intermediate_size=512, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
    vocab_size=300, max_position_embeddings=512,
)  # fmt: skip
CONTEXT = 512
"""Keys that a row of a decode step sees."""

PREFILL = 2048
REPLAYS, ROUNDS = 20, 5


@dataclass(frozen=True, slots=True)
class Form:
    """found: what a checkpoint says of its weights. asked: what plain ones are made into. bits: of a weight, in all.

    checkpoint: what makes its tensors up.
    """

    bits: float
    found: Mapping[str, Any] | None = None
    asked: str | None = None
    checkpoint: type[RandomCheckpoint] = RandomCheckpoint


class MixedBlocks(RandomCheckpoint):
    """The linears of a GGUF file in Q4_K_M: of 32 layers, some of whose matrices have six bits."""

    def has(self, name: str) -> bool:
        """By the type that a name ends in."""
        stem, _, kind = name.rpartition(".")
        layer = int(found[1]) if (found := re.search(r"layers\.(\d+)\.", stem)) else -1
        many = layer in range(4) or layer >= 28 or (layer - 4) % 3 == 2
        return kind == ("Q6_K" if "lm_head" in stem or (many and re.search("v_proj|down_proj", stem)) else "Q4_K")

    def view(self, *asked: Any, **more: Any) -> Tensor:
        """Bytes without their highest bits, so that scales are numbers."""
        made = super().view(*asked, **more)
        return made.bitwise_and_(63) if made.dtype is torch.uint8 else made


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128}
FORMS = {
    "bf16": Form(16),
    "int4": Form(4 + 16 / 128, GPTQ),
    "int4-zeros": Form(4 + 32 / 128, {"quant_method": "awq", "bits": 4, "group_size": 128}),
    "int8": Form(8 + 16 / 128, {**GPTQ, "bits": 8}),
    "eetq": Form(8, asked="eetq"),
    "fp8": Form(8, asked="fp8"),
    "fp8-blocks": Form(8 + 16 / 128, {"quant_method": "fp8", "weight_block_size": [128, 128]}),
    "nf4": Form(4 + 32 / 64, asked="bitsandbytes-nf4"),
    "q4_k_m": Form(5.6, {"quant_method": "gguf"}, checkpoint=MixedBlocks),
    "mxfp4": Form(4 + 16 / 32, {"quant_method": "mxfp4"}),
}
CODES = {"int4": Code.INT4, "int4-zeros": Code.INT4, "int8": Code.INT8, "fp8": Code.FLOAT8, "nf4": Code.INT4}


def main(arguments: Sequence[str]) -> None:
    """Check, measure, print tables; write all figures as JSON if asked to."""
    options = _parser().parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape = {**SHAPES, "tiny": TINY}[options.shape]
    found: dict[str, Any] = {"device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu"}
    found["bandwidth"] = bandwidth(device)
    print(f"{found['device']}: copies {found['bandwidth'] / 1e12:.2f} TB/s; {options.shape}", flush=True)
    names = [name for name in FORMS if not options.only or name in options.only]
    works: list[tuple[str, str, Callable[[str], Any]]] = []
    for name in names:
        if name in CODES and "check" in options.parts:
            works.append((name, "check", lambda name: check(name, device, options.rows)))
        if name in CODES and device.type == "cuda" and "products" in options.parts:
            works.append(
                (name, "products", lambda name: products(name, shape, device, options.rows, found["bandwidth"]))
            )
        if "steps" in options.parts:
            works.append((name, "steps", lambda name: steps(FORMS[name], shape, device, options)))
    for name, part, work in works:
        began = time.perf_counter()
        try:
            found.setdefault(part, {})[name] = work(name)
        except Exception:
            traceback.print_exc()
            print(f"{name} {part}: failed", flush=True)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        print(f"{name} {part}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        if options.out is not None:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(found, indent=1) + "\n")
    print("\n" + table(found.get("steps", {}), shape, found["bandwidth"]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=[*SHAPES, "tiny"], default="llama-3-8b")
    parser.add_argument("--only", type=lambda text: text.split(","), help=f"forms, of {','.join(FORMS)}")
    parser.add_argument("--parts", type=lambda text: text.split(","), default=["check", "products", "steps"])
    parser.add_argument("--rows", type=lambda text: [int(n) for n in text.split(",")], default=[1, 8, 32, 128])
    parser.add_argument("--layers", type=int, help="fewer than the shape's, for a quick look; times are as they come")
    parser.add_argument("--kernels", type=Path, help="file that keeps choices of kernels between runs")
    parser.add_argument("--out", type=Path, help="JSON with every figure")
    return parser


def bandwidth(device: torch.device) -> float:
    """Bytes a second, read and written, of a copy."""
    source = torch.empty(1 << 31 if device.type == "cuda" else 1 << 26, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * len(source) / (timed(lambda: target.copy_(source), device) / 1e3)


def timed(work: Callable[[], Any], device: torch.device, replays: int = REPLAYS) -> float:
    """Milliseconds: the least of some rounds, each the mean of some replays."""
    work()
    found = []
    for _ in range(ROUNDS):
        if device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(replays):
                work()
            end.record()
            end.synchronize()
            found.append(start.elapsed_time(end) / replays)
        else:
            began = time.perf_counter()
            work()
            found.append((time.perf_counter() - began) * 1e3)
    return min(found)


# Kernels by themselves


def random_weight(name: str, n: int, k: int, device: torch.device, size: int = 128) -> PackedWeight:
    """Weights [n, k] of about the values of a real linear's."""
    code, dtype = CODES[name], torch.bfloat16 if device.type == "cuda" else torch.float16
    codes = torch.randint(256, (n, k), dtype=torch.uint8, device=device)
    if code is Code.FLOAT8:
        codes = torch.randn(n, k, device=device).mul_(8).to(torch.float8_e4m3fn)
    groups = k // size, n
    scales = (torch.rand(groups, device=device) + 0.5).div_(
        k**0.5 * {Code.INT4: 5, Code.INT8: 74, Code.FLOAT8: 8}[code]
    )
    zeros = torch.randint(16, groups, device=device).to(dtype) if name.endswith("zeros") else None
    table = torch.tensor(NF4, device=device).mul_(8).to(dtype) if name == "nf4" else None
    words = packed(codes & 15 if code is Code.INT4 else codes.view(code.dtype), code)
    return PackedWeight(words, code, scales.half(), zeros, 8 if name.startswith("int4") else 0, size, k, dtype, table)


def check(name: str, device: torch.device, rows: Sequence[int]) -> dict[str, float]:
    """Every candidate against the twin: the largest error beside the largest result, of plain and of gated products."""
    from text_generation_server.kernels.matmul.linear import SmallBatchLinear
    from text_generation_server.kernels.matmul.measure import GraphTimer
    from text_generation_server.layers.activation import gated_activation
    from text_generation_server.specs.activation import Activation

    multiply = SmallBatchLinear(device)
    found: dict[str, Any] = {}
    n, k = (4096, 4096) if device.type == "cuda" else (128, 256)
    for size in (128, 64, 32):
        weight = random_weight(name, n, k, device, size)
        plain = weight.plain(torch.float32)
        worst: dict[str, float] = {}
        for count in rows:
            x = torch.randn(count, k, device=device).to(weight.dtype)
            exact = F.linear(x.float(), plain)
            activated = gated_activation(Activation.SILU)(exact.to(weight.dtype)).float()
            choices = packed_candidates(count, n, k, weight.form)[: None if size == UNIT else 2]
            if device.type == "cpu":
                choices = choices[:1]
            else:
                kinds = (None, Activation.SILU)
                GraphTimer(device).prepare([(choice, weight, count, kind) for choice in choices for kind in kinds])
            for choice in [*choices, CUBLAS]:
                for kind, expected in ((None, exact), (Activation.SILU, activated)):
                    try:
                        got = multiply(x, weight, None, choice, kind).float()
                        error = float((got - expected).abs().max() / expected.abs().max())
                    except Exception as failure:
                        print(f"{name} in {size}: {count} rows by {choice}: {str(failure)[:300]}", flush=True)
                        error = float("inf")
                    key = f"{choice.kernel.value}{' gated' if kind else ''}"
                    worst[key] = max(worst.get(key, 0.0), error)
                    if error > 0.02:
                        print(f"{name} in {size}: {count} rows by {choice} {key}: error {error:.3g}", flush=True)
        told = ", ".join(f"{key} {error:.2g}" for key, error in worst.items())
        print(f"{name} in groups of {size}: largest errors, of the largest result: {told}", flush=True)
        found |= {f"{size} {key}": error for key, error in worst.items()}
    return found


def products(
    name: str, shape: Shape, device: torch.device, rows: Sequence[int], bytes_a_second: float
) -> dict[str, dict[str, float]]:
    """Microseconds of each candidate for each of the shape's linears, over as many matrices as no cache holds."""
    from text_generation_server.kernels.matmul.measure import GraphTimer

    timer, found = GraphTimer(device), {}
    hidden, inner = shape.hidden_size, shape.intermediate_size
    kv = hidden // shape.num_attention_heads * shape.num_key_value_heads
    for n, k in ((hidden + 2 * kv, hidden), (hidden, hidden), (2 * inner, hidden), (hidden, inner)):
        first = random_weight(name, n, k, device)
        weights = [replace(first, words=first.words.clone()) for _ in range(max(2, (1 << 29) // first.nbytes))]
        for count in rows:
            choices = [*packed_candidates(count, n, k, first.form), CUBLAS]
            timer.prepare([(choice, first, count, None) for choice in choices])
            times = {str(c): t for c in choices if (t := timer(c, weights, count, None, float("inf"))) is not None}
            floor = (first.nbytes + 2 * count * (n + k)) / bytes_a_second * 1e6
            best = sorted(times.items(), key=lambda item: item[1])[:4]
            told = "; ".join(f"{choice} {us:.1f} us" for choice, us in best)
            print(
                f"{name} {count} rows by {n}x{k}: floor {floor:.1f} us, {floor / best[0][1]:.2f} of it: {told}",
                flush=True,
            )
            found[f"{count}x{n}x{k}"] = {"floor": floor, **times}
        del weights, first
        torch.cuda.empty_cache()
    return found


# A whole model


def load(form: Form, shape: Shape, device: torch.device, rows: Sequence[int], kernels: Path | None) -> Decoder:
    """The model as a shard loads it, with random weights; its kernels chosen for these numbers of rows."""
    dtype = torch.bfloat16
    with tempfile.TemporaryDirectory() as folder:
        shape.write(Path(folder))
        spec = read_spec(ConfigDict.load(Path(folder) / "config.json"))
    tuner = MatmulTuner(kernels, device) if device.type == "cuda" else None
    dense = DenseScheme(dtype, device, tuner)
    scheme = scheme_of(None if form.found is None else ConfigDict(form.found), form.asked, dense)
    checkpoint = form.checkpoint(dtype, device, lambda _done, _total: None)
    reader = TensorReader(checkpoint, scheme, dense, transposed=False)
    assert isinstance(spec, DecoderSpec)
    model = DecoderBuilder(spec, reader, SingleRank(), AUTO).build()
    if tuner is not None:
        tuner.tune(rows)
    return model


@torch.inference_mode()
def steps(form: Form, shape: Shape, device: torch.device, options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of decode steps by number of rows and of a prefill, and what the weights take, in bytes."""
    if options.layers is not None:
        shape = replace(shape, num_hidden_layers=options.layers)
    context, prompt = (CONTEXT, PREFILL) if device.type == "cuda" else (32, 64)
    before = torch.cuda.memory_allocated() if device.type == "cuda" else 0
    model = load(form, shape, device, options.rows, options.kernels)
    found = {"bytes": float(torch.cuda.memory_allocated() - before) if device.type == "cuda" else 0.0}
    rows = max(options.rows)
    longest = max(context + 1, -(-prompt // rows))
    table = RowTable(rows, max(longest, prompt), device)
    slots = max(rows * longest, prompt)
    states = allocate(model.states, slots, rows, longest)
    for state in states:
        assert isinstance(state, PagedCache)
        for layer in range(model.kv.num_layers):
            state.layer(layer).zero_()
    build = StepBuilder(table, states)
    for count in options.rows:
        table.admit(range(count), [range(row * longest, (row + 1) * longest) for row in range(count)])
        found[str(count)] = timed(_decode(model, build, table, count, context, device), device)
        print(f"  {count} rows: {found[str(count)]:.3f} ms", flush=True)
    table.admit([0], [range(prompt)])
    step = _prefill(model, build, table, prompt, device)
    found["prefill"] = timed(lambda: forward(model, step), device, replays=3)
    print(f"  prefill 1x{prompt}: {found['prefill']:.2f} ms", flush=True)
    return found


def _decode(
    model: Decoder, build: StepBuilder, table: RowTable, rows: int, context: int, device: torch.device
) -> Callable[[], Any]:
    numbers = torch.arange(rows, device=device)
    lens = torch.full((rows,), context, device=device)
    if device.type == "cpu":
        layout = RowLayout.of(range(rows), [1] * rows, [context] * rows, table.block_table)
        step = build(torch.full_like(numbers, 5), lens - 1, numbers, model.prepare(layout))
        return lambda: forward(model, step)
    plan = next(plan for plan in model.decode_plans(numbers, lens, table.block_table) if plan.suits([context] * rows))
    plan.prepare([context] * rows)

    def work() -> Tensor:
        return forward(model, build(build.newest(numbers), lens - 1, numbers, plan))

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        replay = CudaRecorder().record(work)
    stream.synchronize()
    return replay


def _prefill(model: Decoder, build: StepBuilder, table: RowTable, tokens: int, device: torch.device) -> StepInput:
    layout = RowLayout.of([0], [tokens], [tokens], table.block_table)
    ids = torch.randint(3, model.vocab_size, (tokens,), device=device)
    rows, last = torch.zeros_like(ids), torch.tensor([tokens - 1], device=device)
    return build(ids, torch.arange(tokens, device=device), rows, model.prepare(layout), logit_rows=last)


def table(found: Mapping[str, Mapping[str, float]], shape: Shape, bytes_a_second: float) -> str:
    """Markdown: of each form the times, how many times as fast as bfloat16, and the memory's share of decode steps."""
    columns = list(dict.fromkeys(key for figures in found.values() for key in figures if key != "bytes"))
    lines = ["| form | weights GB | " + " | ".join(f"{c} ms (x bf16; of the floor)" for c in columns) + " |"]
    lines.append("| --- " * (len(columns) + 2) + "|")
    head = 2 * shape.vocab_size * shape.hidden_size
    for name, figures in found.items():
        weights = (shape.weight_bytes - head) * FORMS[name].bits / 16 + head
        cells = [name, f"{figures['bytes'] / 1e9:.2f}"]
        for key in columns:
            ms = figures.get(key)
            if ms is None:
                cells.append("")
                continue
            base = found.get("bf16", {}).get(key)
            told = [] if base is None else [f"{base / ms:.2f}x"]
            if key.isdecimal():
                floor = (weights + int(key) * CONTEXT * shape.cache_bytes) / bytes_a_second * 1e3
                told.append(f"{floor / ms:.2f}")
            cells.append(f"{ms:.3f}" + (f" ({'; '.join(told)})" if told else ""))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    with torch.no_grad():
        main(sys.argv[1:])
