"""Keys and values of 8 bits on a GPU beside those of 16: attention by each backend, and whole decode steps.

Attention is one layer's, over scattered slots, by itself; its share of the memory's speed is that of keys and values
alone. Steps are those of a model with random weights, the same ones for each cache, recorded and replayed as an engine
does. What fails is told, and the next follows. See docs/quantization.md.
"""

import argparse
import functools
import json
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gpu_points import SHAPES
from quantised import TINY, bandwidth, timed
from text_generation_server.architectures.registry import read_spec
from text_generation_server.attention.base import AttentionShape, AttentionVariant, LayerAttention, create_backend
from text_generation_server.cache.layout import RowLayout
from text_generation_server.cache.paged import PagedCache, PagedSpec
from text_generation_server.cache.rows import RowTable
from text_generation_server.cache.states import allocate, bytes_per_slot
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.device.recorder import CudaRecorder
from text_generation_server.distributed.group import SingleRank
from text_generation_server.models.build import DecoderBuilder
from text_generation_server.models.decoder import Decoder
from text_generation_server.models.step import StepBuilder, forward
from text_generation_server.models.tensors import TensorReader
from text_generation_server.quantization.dense import DenseScheme
from text_generation_server.quantization.tuning import MatmulTuner
from text_generation_server.weights.random import RandomCheckpoint

CACHES = {"bf16": None, "e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
HEADS = {"grouped": (32, 8), "multi-head": (32, 32)}


@dataclass(frozen=True, slots=True)
class Point:
    """So many rows of `keys` tokens, of which `queries` are computed."""

    rows: int
    keys: int
    queries: int = 1

    @classmethod
    def parse(cls, text: str) -> "Point":
        """Of `32x8192`, or of `1x8192/512` with the tokens that are computed behind."""
        rows, _, rest = text.partition("x")
        keys, _, queries = rest.partition("/")
        return cls(int(rows), int(keys), int(queries or 1))


def main(arguments: Sequence[str]) -> None:
    """Measure, print a line each; write all figures as JSON if asked to."""
    options = _parser().parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found: dict[str, Any] = {"device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu"}
    speed = found["bandwidth"] = bandwidth(device)
    print(f"{found['device']}: copies {speed / 1e12:.2f} TB/s", flush=True)
    works: list[tuple[str, Callable[[], Any]]] = []
    for heads in options.heads:
        for point in options.attention:
            for cache in options.caches:
                for backend in options.backends:
                    name = f"{heads} {point} {cache} by {backend}"
                    asked = HEADS[heads], Point.parse(point), CACHES[cache], backend, device, speed
                    works.append((name, functools.partial(attention, *asked)))
    if options.steps:
        works.append(("steps", lambda: steps(options, device)))
    for name, work in works:
        try:
            found[name] = work()
            print(f"{name}: {found[name]}", flush=True)
        except Exception:
            traceback.print_exc()
            print(f"{name}: failed", flush=True)
        if options.out is not None:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(found, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    def listed(text: str) -> list[str]:
        return [part for part in text.split(",") if part]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=[*SHAPES, "tiny"], default="llama-3-8b")
    parser.add_argument("--caches", type=listed, default=[*CACHES])
    parser.add_argument("--backends", type=listed, default=["triton", "flashinfer"])
    parser.add_argument("--heads", type=listed, default=["grouped"], help=f"of {', '.join(HEADS)}")
    points = ["32x8192", "32x512", "1x8192", "1x2048/2048", "1x8192/8192"]
    parser.add_argument("--attention", type=listed, default=points, help="points, as 32x8192 or 1x8192/512")
    parser.add_argument("--steps", type=listed, default=["32x8192"], help="points of single tokens")
    parser.add_argument("--kernels", type=Path, help="file that keeps choices of kernels between runs")
    parser.add_argument("--out", type=Path, help="JSON with every figure")
    return parser


@torch.inference_mode()
def attention(
    heads: tuple[int, int], point: Point, narrow: torch.dtype | None, backend: str, device: torch.device, speed: float
) -> dict[str, float]:
    """Microseconds of one layer's attention; of single tokens also the share of the memory's speed."""
    state = PagedSpec(1, heads[1], 128, torch.bfloat16, device, narrow=narrow)
    shape = AttentionShape((AttentionVariant(),), heads[0], state)
    made = create_backend(backend, shape)
    slots = point.rows * point.keys
    cache = PagedCache(replace(state, slot_major=made.slot_major), slots)
    for place in (cache.keys(0), cache.values(0)):
        place.copy_(torch.randn(place.shape, device=device).to(place.dtype))
    table = torch.randperm(slots, device=device).view(point.rows, -1)
    layout = RowLayout.of(range(point.rows), [point.queries] * point.rows, [point.keys] * point.rows, table)
    q = torch.randn(point.rows * point.queries, heads[0], 128, device=device).bfloat16()
    plan, layer = made.plan(layout), LayerAttention(0, 0, 128**-0.5)
    us = timed(lambda: plan.run(q, layer, cache), device) * 1e3
    figures = {"us": round(us, 1)}
    if point.queries == 1:
        figures["of the memory's speed"] = round(slots * state.bytes_per_slot / us * 1e6 / speed, 2)
    return figures


@torch.inference_mode()
def steps(options: argparse.Namespace, device: torch.device) -> dict[str, dict[str, float]]:
    """Milliseconds of decode steps with each cache by point, and bytes of a token."""
    model, shape_of = _model(options, device)
    found: dict[str, dict[str, float]] = {}
    for name in options.caches:
        shape = shape_of(CACHES[name])
        backend = create_backend("auto", shape)
        kv = replace(shape.state, slot_major=backend.slot_major, head_dim=backend.head_dim)
        served = replace(model, kv=kv, attention=backend)
        found[name] = {"bytes a token": bytes_per_slot(served.states)}
        for text in options.steps:
            found[name][text] = round(_step(served, Point.parse(text), device), 3)
            print(f"  {name} {text}: {found[name][text]} ms", flush=True)
    return found


def _model(
    options: argparse.Namespace, device: torch.device
) -> tuple[Decoder, Callable[[torch.dtype | None], AttentionShape]]:
    """With 16 bits; and what its attention is for any cache."""
    sizes = {**SHAPES, "tiny": TINY}[options.shape]
    with tempfile.TemporaryDirectory() as folder:
        sizes.write(Path(folder))
        spec = read_spec(ConfigDict.load(Path(folder) / "config.json"))
    tuner = MatmulTuner(options.kernels, device) if device.type == "cuda" else None
    dense = DenseScheme(torch.bfloat16, device, tuner)
    reader = TensorReader(RandomCheckpoint(torch.bfloat16, device, lambda _done, _total: None), dense, dense, False)
    model = DecoderBuilder(spec, reader, SingleRank(), "auto").build()  # type: ignore[arg-type]
    if tuner is not None:
        tuner.tune([Point.parse(text).rows for text in options.steps])
    state = replace(model.kv, slot_major=False)
    heads = sizes.num_attention_heads
    return model, lambda narrow: AttentionShape((AttentionVariant(),), heads, replace(state, narrow=narrow))


def _step(model: Decoder, point: Point, device: torch.device) -> float:
    rows, keys = point.rows, point.keys
    table = RowTable(rows, keys, device)
    states = allocate(model.states, rows * keys, rows, keys)
    for layer in range(model.kv.num_layers):
        states[0].layer(layer).view(torch.uint8).zero_()  # type: ignore[attr-defined]
    slots = torch.randperm(rows * keys).view(rows, keys).tolist()
    table.admit(range(rows), slots)
    build = StepBuilder(table, states)
    numbers, lens = torch.arange(rows, device=device), torch.full((rows,), keys, device=device)
    if device.type == "cpu":
        layout = RowLayout.of(range(rows), [1] * rows, [keys] * rows, table.block_table)
        step = build(torch.full_like(numbers, 5), lens - 1, numbers, model.prepare(layout))
        return timed(lambda: forward(model, step), device)
    plan = next(plan for plan in model.decode_plans(numbers, lens, table.block_table) if plan.suits([keys] * rows))
    plan.prepare([keys] * rows)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        replay = CudaRecorder().record(lambda: forward(model, build(build.newest(numbers), lens - 1, numbers, plan)))
    stream.synchronize()
    return timed(replay, device)


if __name__ == "__main__":
    main(sys.argv[1:])
