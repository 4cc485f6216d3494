"""What steps with prompts beside answers cost on a GPU, in one process: the whole, the host's part, the device's.

Steps go through a shard's `Runner`, replayed where it would replay them. For each point the same step is launched many
times over, each before the last one's tokens are read, as the engine does: a step takes what the slower of host and
device takes. `--kernels` also lists where the device's time goes.
"""

import argparse
import collections
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]

from gpu_points import SHAPES
from text_generation_server.device.recorder import CudaRecorder
from text_generation_server.device.stream import Pending, make_stream
from text_generation_server.distributed.group import SingleRank
from text_generation_server.engine.choosing import ChoosingRows, SamplingInput
from text_generation_server.engine.graphs.decodes import usual_sizes
from text_generation_server.engine.launched_step import StepOutput
from text_generation_server.engine.plan import Admission, AllocateCache, StepPlan
from text_generation_server.engine.runner import Runner
from text_generation_server.models.loading import ModelOptions, load_model
from text_generation_server.sampling.counts import CountsRows
from text_generation_server.sampling.params import SamplingParams, WatermarkParams

Launch = Callable[[], Pending[StepOutput]]

ROWS, WARM, STEPS = 288, 3, 12
"""Rows of the table, and how often a step is run before and while it is timed."""


@dataclass(frozen=True, slots=True)
class Point:
    """So many answers of `keys` tokens each, and prompts of which each has `chunk` of `prompt_keys` computed now."""

    answers: int
    keys: int
    prompts: int = 0
    chunk: int = 0
    prompt_keys: int = 0

    @classmethod
    def parse(cls, text: str) -> "Point":
        """Of `128x640+1x512/2000`: answers x keys + prompts x chunk / keys that the chunk ends at."""
        answers, _, prompts = text.partition("+")
        count, _, keys = answers.partition("x")
        many, _, chunk = prompts.partition("x")
        tokens, _, end = chunk.partition("/")
        numbers = [int(number or 0) for number in (count, keys, many, tokens, end or tokens)]
        return cls(*numbers)

    def plan(self, admissions: Sequence[Admission] = ()) -> StepPlan:
        """The step."""
        rows = self.answers + self.prompts
        prompt = tuple(range(1000, 1000 + self.chunk))
        return StepPlan(
            rows=tuple(range(rows)),
            query_lens=(1,) * self.answers + (self.chunk,) * self.prompts,
            seq_lens=(self.keys,) * self.answers + (self.prompt_keys,) * self.prompts,
            prompts=(None,) * self.answers + (prompt,) * self.prompts,
            admissions=tuple(admissions),
            chooses=tuple(range(rows)),
            drafted=(0,) * rows,
        )


class Bench:
    """A runner with random weights and scattered slots."""

    def __init__(self, shape: str, kernel_choices: Path, slots: int, longest: int) -> None:
        self._longest = longest
        with tempfile.TemporaryDirectory() as folder:
            SHAPES[shape].write(Path(folder))
            device = torch.device("cuda")
            options = ModelOptions(torch.bfloat16, device, random_weights=True, kernel_choices=kernel_choices)
            model = load_model(Path(folder), options, SingleRank(), lambda done, total: None)
        self.runner = Runner(model, SingleRank(), make_stream(device), CudaRecorder)
        self.runner.allocate(AllocateCache(slots, ROWS, longest, tuple(usual_sizes(256)))).result()
        while self.runner.record_more().result():
            pass
        self._slots = random.Random(0).sample(range(slots), slots)

    def step(self, point: Point) -> Launch:
        """What launches the step, after its rows have been admitted."""
        each = len(self._slots) // (point.answers + point.prompts)
        rows = range(point.answers + point.prompts)
        admissions = [Admission(row, self._slots[row * each : row * each + min(each, self._longest)]) for row in rows]
        sampling = _greedy(len(rows))
        self.runner.launch(point.plan(admissions), sampling).result()
        plan = point.plan()
        return lambda: self.runner.launch(plan, sampling)


def _greedy(rows: int) -> SamplingInput:
    asked = ChoosingRows([SamplingParams()] * rows, [0] * rows, [CountsRows()] * rows, WatermarkParams())
    return SamplingInput(asked, [0.0] * rows, [1] * rows, [0] * rows)


def timed(launch: Launch) -> tuple[float, float, float]:
    """Milliseconds a step: of the whole, of the host to launch it, of the device by its events."""
    for _ in range(WARM):
        launch().result()
    host, pending = 0.0, []
    began = time.perf_counter()
    for _ in range(STEPS):
        before = time.perf_counter()
        pending.append(launch())
        host += time.perf_counter() - before
        if len(pending) > 1:
            pending[-2].result()
    worked = sum(step.result().forward_ns for step in pending) / 1e9
    whole = time.perf_counter() - began
    return whole * 1e3 / STEPS, host * 1e3 / STEPS, worked * 1e3 / STEPS


def kernels(launch: Launch, most: int) -> list[tuple[str, float]]:
    """The kernels that take most of a step, and their milliseconds."""
    took: dict[str, float] = collections.defaultdict(float)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(WARM):
            launch().result()
    for event in profile.events():
        if event.device_type == DeviceType.CUDA:
            took[event.name[:80]] += event.device_time / WARM / 1e3
    return sorted(took.items(), key=lambda item: -item[1])[:most]


def main(arguments: Sequence[str]) -> None:
    """Print a line for each point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("points", nargs="+", help=Point.parse.__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="llama-3-8b")
    parser.add_argument("--kernels", type=int, default=0, metavar="N", help="list the N kernels that take most")
    parser.add_argument(
        "--kernel-choices", type=Path, default=Path("kernels.json"), help="what was measured of kernels"
    )
    options = parser.parse_args(arguments)
    bench = Bench(options.shape, options.kernel_choices, slots=600_000, longest=8192)
    print("| step | tokens | ms | host ms | device ms | us a token |\n| --- | --- | --- | --- | --- | --- |")
    for text in options.points:
        point = Point.parse(text)
        tokens = point.answers + point.prompts * point.chunk
        launch = bench.step(point)
        whole, host, device = timed(launch)
        print(
            f"| {text} | {tokens} | {whole:.2f} | {host:.2f} | {device:.2f} | {whole / tokens * 1e3:.1f} |", flush=True
        )
        for name, took in kernels(launch, options.kernels) if options.kernels else []:
            print(f"    {took:8.3f} ms  {name}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
