"""Markdown tables of two files of figures: this server's beside a peer's, and beside what the memory allows.

Knows neither of the two.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpu_points import LONG, SHAPES, SHORT, Shape

BANDWIDTH = 3.02e12
"""Bytes a second that an H100 copies within its memory, measured."""

FASTER, NEAR_FLOOR, PREFILL_FASTER = 1.10, 0.92, 1.0


@dataclass(frozen=True, slots=True)
class Step:
    """A decode step in milliseconds: ours, the peer's if it was measured, and the least the memory allows."""

    batch: int
    prompt: int
    ours: float
    peer: float | None
    floor: float

    @property
    def ratio(self) -> float | None:
        """How many times as fast as the peer."""
        return None if self.peer is None else self.peer / self.ours

    @property
    def share(self) -> float:
        """How much of the step the memory needs."""
        return self.floor / self.ours

    @property
    def met(self) -> bool | None:
        """Whether the lower of both bars is reached; None where only the peer could tell."""
        if self.share >= NEAR_FLOOR:
            return True
        return None if self.ratio is None else self.ratio >= FASTER


def floor_ms(shape: Shape, batch: int, prompt: int) -> float:
    """Of a step in the middle of those that are timed.

    All weights that its tokens are likely to want, and all keys and values, are read once.
    """
    context = prompt + (LONG + SHORT) // 2
    return (shape.read_bytes(batch) + batch * context * shape.cache_bytes) / BANDWIDTH * 1e3


def tables(ours: Mapping[str, Any], peer: Mapping[str, Any]) -> str:
    """Decode and prefill tables of one shape. ValueError if the files are of different ones."""
    if ours["shape"] != peer["shape"]:
        raise ValueError(f"figures of {ours['shape']} and of {peer['shape']}, expected the same shape")
    shape = SHAPES[ours["shape"]]
    start = f"{ours['shape']}: ready {ours['start_s']:.1f} s after its start, warm {ours['warmup_s']:.1f} s later."
    decode = _table(
        ["prompt", "batch", "tokens/s", "ms a step", f"{peer['engine']} ms", "times as fast", "floor ms",
         "of the floor", "aim met"],
        (_step_row(step) for step in steps(shape, ours["decode"], peer["decode"])),
    )  # fmt: skip
    prefill = _table(
        ["prompts x tokens", "ms (median)", f"{peer['engine']} ms (median)", "times as fast", "aim met"],
        (_prefill_row(key, figures, peer["prefill"].get(key)) for key, figures in ours["prefill"].items()),
    )
    return f"{start}\n\n{decode}\n\n{prefill}\n"


def steps(shape: Shape, ours: Mapping[str, Any], peer: Mapping[str, Any]) -> Iterator[Step]:
    """Every point of ours."""
    for key, figures in ours.items():
        batch, prompt = map(int, key.split("x"))
        theirs = peer[key]["step_ms"] if key in peer else None
        yield Step(batch, prompt, figures["step_ms"], theirs, floor_ms(shape, batch, prompt))


def _step_row(step: Step) -> list[str]:
    return [
        str(step.prompt),
        str(step.batch),
        f"{step.batch / step.ours * 1e3:.0f}",
        f"{step.ours:.3f}",
        _number(step.peer, ".3f"),
        _number(step.ratio, ".2f"),
        f"{step.floor:.3f}",
        f"{step.share:.2f}",
        _verdict(step.met),
    ]


def _prefill_row(key: str, ours: Mapping[str, float], peer: Mapping[str, float] | None) -> list[str]:
    both = f"{ours['min_ms']:.1f} ({ours['median_ms']:.1f})"
    if peer is None:
        return [key, both, "–", "–", _verdict(None)]
    ratio = peer["min_ms"] / ours["min_ms"]
    theirs = f"{peer['min_ms']:.1f} ({peer['median_ms']:.1f})"
    return [key, both, theirs, f"{ratio:.2f}", _verdict(ratio >= PREFILL_FASTER)]


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _verdict(met: bool | None) -> str:
    return {True: "yes", False: "no", None: "–"}[met]


def _table(heads: Sequence[str], rows: Iterator[list[str]]) -> str:
    lines = [heads, ["---:"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
