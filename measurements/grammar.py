"""What a grammar costs: compiling it, and for every token the mask of the next one and the advance past the last.

Measures the library the server uses, or any of those named with --libraries that are installed. Prints a table for each
vocabulary, the model's own and one of 128 000 tokens made from it, and writes every figure to bench-out/grammar.json.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from grammar_libraries import LIBRARIES, Case, Library
from text_generation_server.tokenization.adapter import TokenizerAdapter

LARGE_VOCABULARY = 128_000
BATCH = 32


CASES = (
    Case("digits", None, r"[0-9]{3}", "314"),
    Case("email", None, r"[a-z0-9._]{1,30}@[a-z0-9]{1,30}\.(com|org|net)", "first.last@example.org"),
    Case("date", None, r"(19|20)[0-9]{2}-(0[1-9]|1[0-2])-([0-2][0-9]|3[01])", "2024-11-22"),
    Case(
        "flat object",
        {
            "type": "object",
            "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
            "required": ["name", "age"],
            "additionalProperties": False,
        },
        "",
        '{"name": "Ada Lovelace", "age": 36}',
    ),
    Case(
        "nested object",
        {
            "type": "object",
            "properties": {
                "id": {"type": "string", "maxLength": 40},
                "tags": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 8},
                "origin": {"$ref": "#/$defs/place"},
            },
            "required": ["id", "tags", "origin"],
            "additionalProperties": False,
            "$defs": {
                "place": {
                    "type": "object",
                    "properties": {"city": {"type": "string"}, "country": {"enum": ["de", "fr", "it"]}},
                    "required": ["city", "country"],
                    "additionalProperties": False,
                }
            },
        },
        "",
        '{"id": "k-17", "tags": ["red", "round"], "origin": {"city": "Bologna", "country": "it"}}',
    ),
    Case(
        "choice of tools",
        {
            "type": "object",
            "properties": {
                "function": {
                    "anyOf": [
                        {
                            "type": "object",
                            "properties": {"_name": {"const": name}, "place": {"type": "string"}},
                            "required": ["_name", "place"],
                            "additionalProperties": False,
                        }
                        for name in ("weather", "traffic", "news")
                    ]
                }
            },
            "required": ["function"],
            "additionalProperties": False,
        },
        "",
        '{"function": {"_name": "traffic", "place": "Lyon, Rhône"}}',
    ),
)


def main() -> None:
    """Measure and report."""
    options = parse()
    tokenizer = TokenizerAdapter.load(options.model)
    own, eos = tokenizer.token_bytes(), min(tokenizer.eos_ids)
    for token_id in tokenizer.special_ids:
        own[token_id] = b""
    figures = []
    for vocabulary in (own, enlarged(own, LARGE_VOCABULARY)):
        print(f"\nvocabulary of {len(vocabulary)} tokens, times in microseconds unless said otherwise")
        for name in options.libraries:
            began = time.perf_counter()
            library = LIBRARIES[name](vocabulary, eos)
            print(f"{name}: vocabulary read in {1e3 * (time.perf_counter() - began):.0f} ms")
            print(f"{'':17}{'compile ms':>11}{'mask':>8}{'max':>8}{'advance':>9}{f'mask x{BATCH}':>10}")
            for case in CASES:
                measured = {"library": name, "vocabulary": len(vocabulary), **measure(library, case, vocabulary)}
                figures.append(measured)
                print(
                    "{case:17}{compile_ms:11.1f}{mask:8.0f}{mask_max:8.0f}{advance:9.1f}{masks:10.0f}".format(
                        **measured
                    )
                )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(figures, indent=1))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="a directory with a tokenizer")
    parser.add_argument("--libraries", nargs="+", default=["llguidance"], choices=sorted(LIBRARIES))
    parser.add_argument("--out", type=Path, default=Path("bench-out/grammar.json"))
    return parser.parse_args()


def enlarged(vocabulary: list[bytes], size: int) -> list[bytes]:
    """The vocabulary with new tokens, each two of the old ones joined."""
    rng, known = random.Random(0), set(vocabulary)
    added: dict[bytes, None] = {}
    while len(added) < size - len(vocabulary):
        token = rng.choice(vocabulary)[:8] + rng.choice(vocabulary)[:8]
        if token not in known:
            added[token] = None
    return vocabulary + list(added)


def measure(library: Library, case: Case, vocabulary: list[bytes]) -> dict[str, Any]:
    """Microseconds of each operation along the case's text, alone and for a batch; compiling in milliseconds."""
    compiling, start = timed(lambda: library.compile(case))
    masks = torch.zeros(BATCH, -(-len(vocabulary) // 32), dtype=torch.int32)
    alone = library.copy(start)
    batch = [library.copy(start) for _ in range(BATCH)]
    single, advance, together = [], [], []
    for token in tokens_of(case.text, vocabulary):
        single.append(timed(lambda: library.fill([alone], masks[:1]))[0])
        assert int(masks[0, token // 32]) >> (token % 32) & 1, f"{case.name}: {vocabulary[token]!r} is not allowed"
        together.append(timed(lambda: library.fill(batch, masks))[0])
        for state in (alone, *batch):
            advance.append(timed(lambda state=state, token=token: library.advance(state, token))[0])  # type: ignore[misc]
    return {
        "case": case.name,
        "compile_ms": compiling / 1e3,
        "mask": statistics.median(single),
        "mask_max": max(single),
        "advance": statistics.median(advance),
        "masks": statistics.median(together),
    }


def tokens_of(text: str, vocabulary: list[bytes]) -> list[int]:
    """The text as the longest tokens from the left."""
    ids = {token: token_id for token_id, token in enumerate(vocabulary) if token}
    rest, found = text.encode(), []
    while rest:
        length = next(n for n in range(min(len(rest), 32), 0, -1) if rest[:n] in ids)
        found.append(ids[rest[:length]])
        rest = rest[length:]
    return found


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Microseconds, and what came of it."""
    began = time.perf_counter_ns()
    result = work()
    return (time.perf_counter_ns() - began) / 1e3, result


if __name__ == "__main__":
    main()
