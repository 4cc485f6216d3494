"""All cells, repetition by repetition, of one server or of two in turns. Knows no reports."""

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from text_generation_benchmark.errors import BenchmarkError
from text_generation_benchmark.http.client import Client, Tally
from text_generation_benchmark.http.figures import Run
from text_generation_benchmark.http.load import Limit, Load, Send, Streams
from text_generation_benchmark.http.timeline import Timeline
from text_generation_benchmark.http.workload import Requests, Workload


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured. warmup: requests before each cell that do not count, None for one on each stream."""

    workloads: tuple[Workload, ...]
    loads: tuple[Load, ...]
    limit: Limit
    repetitions: int
    warmup: int | None
    seed: int


@dataclass(frozen=True, slots=True)
class Cell:
    """A workload under a load."""

    workload: Workload
    load: Load

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.workload.label}, {self.load.label}"


class Watcher(Protocol):
    """Who is told what happens."""

    def begin(self, what: str, tally: Tally) -> None:
        """A run begins."""

    def end(self) -> None:
        """It is over."""


async def sweep(
    clients: Sequence[Client], plan: Plan, requests: Requests, watcher: Watcher
) -> AsyncIterator[tuple[Cell, list[list[Run]]]]:
    """Each cell with the runs of each server, as soon as they are there. Raises BenchmarkError."""
    for cell in (Cell(workload, load) for workload in plan.workloads for load in plan.loads):
        runs: list[list[Run]] = [[] for _ in clients]
        for client in clients:
            await _warm_up(client, cell, plan, requests, watcher)
        for repetition in range(plan.repetitions):
            turns = list(enumerate(clients))
            for which, client in turns if repetition % 2 == 0 else reversed(turns):  # so that drifts cancel out
                what = f"{client.target.url}: {cell.label}, {repetition + 1} of {plan.repetitions}"
                watcher.begin(what, client.tally)
                runs[which].append(await _run(client, cell, plan, requests, str(repetition)))
                watcher.end()
        yield cell, runs


async def _warm_up(client: Client, cell: Cell, plan: Plan, requests: Requests, watcher: Watcher) -> None:
    count = cell.load.side_by_side if plan.warmup is None else plan.warmup
    if count == 0:
        return
    watcher.begin(f"{client.target.url}: {cell.label}, warm-up", client.tally)
    streams = Streams(min(count, cell.load.side_by_side))
    timelines = await streams.run(_sender(client, cell, requests, "warm-up"), Limit(requests=count), "")
    watcher.end()
    errors = [timeline.error for timeline in timelines if timeline.error is not None]
    if errors:
        raise BenchmarkError(
            f"{client.target.url} failed {len(errors)} of {count} warm-up requests, the first with: {errors[0]}; "
            "nothing is measured that would fail (--warmup 0 does)"
        )


async def _run(client: Client, cell: Cell, plan: Plan, requests: Requests, repetition: str) -> Run:
    send = _sender(client, cell, requests, repetition)
    started, cpu_started = time.perf_counter(), time.process_time()
    timelines = await cell.load.run(send, plan.limit, f"{plan.seed} {repetition}")
    took = time.perf_counter() - started
    cpu_share = (time.process_time() - cpu_started) / took
    return Run(timelines, started, _window_s(timelines, started, plan.limit), cpu_share)


def _window_s(timelines: Sequence[Timeline], started: float, limit: Limit) -> float:
    """A duration is kept to, so that the last answers, which have the server for themselves, count for no rate."""
    if limit.duration_s is not None:
        return limit.duration_s
    return max((timeline.end for timeline in timelines), default=started) - started or 1.0


def _sender(client: Client, cell: Cell, requests: Requests, run: str) -> Send:
    async def send(number: int, due: float | None) -> list[Timeline]:
        found: list[Timeline] = []
        before: tuple[str, ...] = ()
        for turn in range(cell.workload.turns):
            request = requests.make(cell.workload, f"{cell.load.label} {run}", number, turn, before)
            found.append(await client.generate(request, None if turn else due))
            if found[-1].error is not None:
                break
            before = (*request.before, request.prompt, found[-1].text)
        return found

    return send
