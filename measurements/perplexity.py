"""What few bits do to a real model's predictions: the perplexity of SmolLM2 over a fixed text, form by form, on a CPU.

The text, `texts/alice.txt`, is the first two chapters of Alice's Adventures in Wonderland (1865), in the public domain.
It is read in windows; of each, every token but the first is predicted from those before it. Weights of 4 bits in
checkpoints are written by the tests' oracle, rounded to nearest: what GPTQ's and AWQ's own calibration would gain is
not in the figures. `PYTHONPATH=tests python measurements/perplexity.py`; see docs/quantization.md.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from oracles.driver import Driver
from oracles.quantised import QuantisedModel, awq, gptq, quantise
from text_generation_server.choices import KvCacheDtype
from text_generation_server.distributed.group import SingleRank
from text_generation_server.models.loading import ModelOptions, load_model
from text_generation_server.settings import hub_settings
from text_generation_server.tokenization.adapter import TokenizerAdapter
from text_generation_server.weights.source import locate

TEXT = Path(__file__).parent / "texts" / "alice.txt"
SIZE = 64
"""Inputs of a group: the model's 576 are no multiple of 128."""

FLOAT32 = ModelOptions(torch.float32, torch.device("cpu"))
BFLOAT16 = replace(FLOAT32, dtype=torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Form:
    """How the model is loaded; written: how its files are quantised before."""

    options: ModelOptions = FLOAT32
    written: QuantisedModel | None = field(default=None)


FORMS: Mapping[str, Form] = {
    "float32": Form(),
    "bfloat16": Form(BFLOAT16),
    "eetq, bitsandbytes": Form(replace(FLOAT32, quantize="eetq")),
    "fp8": Form(replace(FLOAT32, quantize="fp8")),
    "bitsandbytes-nf4": Form(replace(FLOAT32, quantize="bitsandbytes-nf4")),
    "bitsandbytes-fp4": Form(replace(FLOAT32, quantize="bitsandbytes-fp4")),
    "GPTQ, 4 bits": Form(
        written=QuantisedModel(gptq(size=SIZE), {"quant_method": "gptq", "bits": 4, "group_size": SIZE})
    ),
    "AWQ, 4 bits": Form(
        written=QuantisedModel(awq(SIZE), {"quant_method": "awq", "bits": 4, "group_size": SIZE, "version": "gemm"})
    ),
    "keys and values e4m3": Form(replace(FLOAT32, kv_cache_dtype=KvCacheDtype.FP8_E4M3FN)),
    "keys and values e5m2": Form(replace(FLOAT32, kv_cache_dtype=KvCacheDtype.FP8_E5M2)),
    "fp8 and keys and values e4m3": Form(replace(FLOAT32, quantize="fp8", kv_cache_dtype=KvCacheDtype.FP8_E4M3FN)),
}


def main(arguments: Sequence[str]) -> None:
    """Print a line a form as it is known, and a table; write the figures as JSON if asked to."""
    options = _parser().parse_args(arguments)
    directory = locate(options.model_id, None, hub_settings(), print)
    tokens = TokenizerAdapter.load(directory).encode(TEXT.read_text(encoding="utf-8"))
    windows = [tokens[at : at + options.window] for at in range(0, len(tokens) - 1, options.window)]
    windows = windows[: options.windows]
    print(f"{sum(map(len, windows))} of {len(tokens)} tokens in {len(windows)} windows", flush=True)
    found: dict[str, float] = {}
    for name in options.forms:
        began = time.process_time()
        found[name] = measured(FORMS[name], directory, windows)
        print(f"{name}: {found[name]:.4f} ({time.process_time() - began:.0f} s of processors)", flush=True)
    print("\n" + table(found))
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-id", default="smollm2")
    parser.add_argument("--forms", type=lambda text: text.split(";"), default=[*FORMS], help="separated by semicolons")
    parser.add_argument("--window", type=int, default=1024, help="tokens that are read together")
    parser.add_argument("--windows", type=int, help="the first of them alone")
    parser.add_argument("--out", type=Path, help="JSON with every figure")
    return parser


def measured(form: Form, directory: Path, windows: Sequence[Sequence[int]]) -> float:
    """The perplexity of the windows together."""
    if form.written is None:
        return perplexity(directory, form.options, windows)
    with tempfile.TemporaryDirectory() as folder:
        quantise(directory, Path(folder) / "model", form.written)
        return perplexity(Path(folder) / "model", form.options, windows)


def perplexity(directory: Path, options: ModelOptions, windows: Sequence[Sequence[int]]) -> float:
    """Of this model."""
    model: Any = load_model(directory, options, SingleRank(), lambda _done, _total: None)
    total, count = 0.0, 0
    for window in windows:
        (logits,) = Driver(model, [len(window)]).step([(0, window)])
        said = logits[:-1].float().log_softmax(-1).gather(1, torch.tensor(window[1:])[:, None])
        total, count = total - float(said.double().sum()), count + len(window) - 1
    return math.exp(total / count)


def table(found: Mapping[str, float]) -> str:
    """Markdown, with how much more each is than the first."""
    base = next(iter(found.values()))
    shown: Callable[[float], str] = lambda value: f"{value:.3f} | {100 * (value / base - 1):+.2f} %"  # noqa: E731
    lines = ["| form | perplexity | more |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {name} | {shown(value)} |" for name, value in found.items())])


if __name__ == "__main__":
    main(sys.argv[1:])
