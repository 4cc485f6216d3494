"""What is measured on a GPU, for this server and its peer alike: model shapes, points, and how often each is run.

Standard library only, so that it runs beside any peer. Knows neither servers nor devices.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

MAX_PREFILL_TOKENS = 16384
MAX_TOTAL_TOKENS = 4096
SEQUENCES = 128

LONG, SHORT = 128, 16
"""New tokens of the two runs whose difference is decoding alone."""

BYTES = 2
"""Of a number in bfloat16."""

Generate = Callable[[int, int, int], float]
"""Seconds for a batch of so many prompts with so many tokens each, and so many new tokens for each."""


@dataclass(frozen=True, slots=True)
class Experts:
    """Of a layer's MLP: `count` experts of `size` each, of which a token has `top`. config: its family's own words."""

    count: int
    top: int
    size: int
    config: tuple[tuple[str, object], ...]

    def distinct(self, tokens: int) -> float:
        """How many of them so many tokens are likely to want, if all are liked alike."""
        return self.count * (1 - (1 - self.top / self.count) ** tokens)


@dataclass(frozen=True, slots=True)
class Shape:
    """A model of some size, as its config.json says it: a Llama, or one with experts."""

    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 32
    vocab_size: int = 32000
    max_position_embeddings: int = 4096
    rope_theta: float = 10000.0
    head_dim: int | None = None
    experts: Experts | None = None

    @property
    def weight_bytes(self) -> int:
        """Of all weights but the embedding, of which a step reads a few rows only."""
        return self.read_bytes(None)

    def read_bytes(self, tokens: int | None) -> int:
        """Of the weights that a step of so many tokens is likely to read; of all for None."""
        layer = self.hidden_size * 2 * self._head_dim * (self.num_attention_heads + self.num_key_value_heads)
        if self.experts is None:
            layer += self.hidden_size * 3 * self.intermediate_size
        else:
            read = self.experts.count if tokens is None else self.experts.distinct(tokens)
            layer += round(self.hidden_size * (3 * self.experts.size * read + self.experts.count))
        return BYTES * (self.num_hidden_layers * layer + self.vocab_size * self.hidden_size)

    @property
    def cache_bytes(self) -> int:
        """Of a token's keys and values."""
        return BYTES * 2 * self.num_hidden_layers * self._head_dim * self.num_key_value_heads

    @property
    def _head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads if self.head_dim is None else self.head_dim

    def write(self, directory: Path) -> None:
        """Make a model directory without weights."""
        config = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "experts"}
        if self.head_dim is None:
            del config["head_dim"]
        config |= {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "attention_bias": False,
            "torch_dtype": "bfloat16",
            "bos_token_id": 1,
            "eos_token_id": 2,
        }
        if self.experts is not None:
            config |= dict(self.experts.config)
        (directory / "config.json").write_text(json.dumps(config, indent=2))


SHAPES = {
    "llama-2-7b": Shape(),
    "llama-3-8b": Shape(
        intermediate_size=14336,
        num_key_value_heads=8,
        vocab_size=128256,
        max_position_embeddings=8192,
        rope_theta=500000.0,
    ),
    "llama-3-70b-16-layers": Shape(
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=16,
        num_attention_heads=64,
        num_key_value_heads=8,
        vocab_size=128256,
        max_position_embeddings=8192,
        rope_theta=500000.0,
    ),
    "mixtral-8x7b-16-layers": Shape(
        intermediate_size=14336,
        num_hidden_layers=16,
        num_key_value_heads=8,
        max_position_embeddings=32768,
        rope_theta=1000000.0,
        experts=Experts(
            *(8, 2, 14336),
            (
                *(("architectures", ["MixtralForCausalLM"]), ("model_type", "mixtral")),
                *(("num_local_experts", 8), ("num_experts_per_tok", 2), ("sliding_window", None)),
            ),
        ),
    ),
    "qwen3-30b-a3b": Shape(
        hidden_size=2048,
        intermediate_size=6144,
        num_hidden_layers=48,
        num_attention_heads=32,
        num_key_value_heads=4,
        vocab_size=151936,
        head_dim=128,
        max_position_embeddings=40960,
        rope_theta=1000000.0,
        experts=Experts(
            *(128, 8, 768),
            (
                *(("architectures", ["Qwen3MoeForCausalLM"]), ("model_type", "qwen3_moe")),
                *(("num_experts", 128), ("num_experts_per_tok", 8), ("moe_intermediate_size", 768)),
                *(("norm_topk_prob", True), ("decoder_sparse_step", 1), ("mlp_only_layers", [])),
                *(("use_sliding_window", False), ("sliding_window", None), ("max_window_layers", 48)),
            ),
        ),
    ),
    "gpt-oss-20b": Shape(
        hidden_size=2880,
        intermediate_size=2880,
        num_hidden_layers=24,
        num_attention_heads=64,
        num_key_value_heads=8,
        vocab_size=201088,
        head_dim=64,
        max_position_embeddings=131072,
        rope_theta=150000.0,
        experts=Experts(
            *(32, 4, 2880),
            (
                *(("architectures", ["GptOssForCausalLM"]), ("model_type", "gpt_oss"), ("attention_bias", True)),
                *(("num_local_experts", 32), ("num_experts_per_tok", 4), ("sliding_window", 128)),
            ),
        ),
    ),
}


@dataclass(frozen=True, slots=True)
class Points:
    """Batches of prompts with equal lengths: every batch with every prompt for decoding, pairs for the prefill."""

    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    prompts: tuple[int, ...] = (10, 512)
    prefills: tuple[tuple[int, int], ...] = (
        *((batch, 10) for batch in (1, 2, 4, 8, 16, 32)),
        (1, 512),
        (1, 2048),
        (8, 1024),
    )

    @classmethod
    def chosen(cls, options: argparse.Namespace) -> Self:
        """By the options of `add_options`."""
        points = cls((1, 8, 32, 128), (10,), ((1, 10), (1, 2048), (8, 1024))) if options.quick else cls()
        return cls(options.batches or points.batches, options.prompts or points.prompts, points.prefills)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which model, which points, and where the figures go."""
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON with every figure")
    parser.add_argument("--quick", action="store_true", help="a few points only")
    for name in ("--batches", "--prompts"):
        parser.add_argument(name, type=_numbers, metavar="N,N", help="of the decode points, instead of all")


def record(path: Path, about: Mapping[str, Any], points: Points, generate: Generate) -> None:
    """Sweep, and write the JSON file again after each point: a run that is cut short leaves what it had."""
    found: dict[str, Any] = {**about, "prefill": {}, "decode": {}}
    path.parent.mkdir(parents=True, exist_ok=True)
    for kind, point, figures in sweep(points, generate):
        found[kind][point] = figures
        path.write_text(json.dumps(found, indent=2) + "\n")
        ms = figures["min_ms" if kind == "prefill" else "step_ms"]
        print(f"{kind} {point}: {ms:.3f} ms", file=sys.stderr, flush=True)


def sweep(points: Points, generate: Generate) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """`prefill` or `decode`, the point, and its figures, every run's among them.

    Prefill: five runs with one new token. Decode: the best of two runs with LONG new tokens less the best of two with
    SHORT, divided by the difference: prompts and whatever comes once fall out. A run that is not counted comes first.
    """
    for batch, prompt in points.prefills:
        generate(batch, prompt, 1)
        times = [generate(batch, prompt, 1) * 1e3 for _ in range(5)]
        figures = {"min_ms": min(times), "median_ms": statistics.median(times), "all_ms": times}
        yield "prefill", f"{batch}x{prompt}", figures
    for prompt in points.prompts:
        for batch in points.batches:
            generate(batch, prompt, SHORT)
            short = [generate(batch, prompt, SHORT) for _ in range(2)]
            long = [generate(batch, prompt, LONG) for _ in range(2)]
            step_ms = (min(long) - min(short)) / (LONG - SHORT) * 1e3
            yield "decode", f"{batch}x{prompt}", {"step_ms": step_ms, "short_s": short, "long_s": long}


def _numbers(text: str) -> Sequence[int]:
    return tuple(int(part) for part in text.split(","))
