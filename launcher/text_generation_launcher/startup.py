"""Shows what the children say, and how far the start is: a line a phase, with seconds and bytes. Starts nothing."""

import time
from collections.abc import Callable
from enum import StrEnum

from text_generation_launcher.child import LineHandler
from text_generation_launcher.console import Console, size
from text_generation_launcher.relay import Record, parse_event, parse_record


class Phase(StrEnum):
    """The parts of a start, in order; the values are those of the children's reports (relay.py)."""

    DOWNLOAD = "download"
    LOAD = "load"
    WARMUP = "warmup"


COUNTED = {"tune": "cases", "probe": "steps", "record": "steps"}
"""Parts of phases whose reports count other things than bytes, by name."""


class StartUp:
    """The clock and the byte counts of one start."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._origin = self._began = time.monotonic()
        self._done: dict[tuple[str | None, str], tuple[int, int]] = {}
        self._cache: tuple[int, int] | None = None

    def begin(self) -> None:
        """The next phase begins now."""
        self._began = time.monotonic()
        self._done.clear()

    def stdout_of(self, source: str, take: Callable[[Record], None] | None = None) -> LineHandler:
        """What is done with a child's stdout: records are handed to `take`, and shown unless they report on a phase."""

        def handle(line: str) -> None:
            record = parse_record(line)
            if record is None:
                self._console.debug(line, source)
                return
            if take is not None:
                take(record)
            if not self._report(source, record):
                self._console.log(record.level, record.text, source, record.extra)

        return handle

    def stdout_of_router(self, line: str) -> None:
        """Show a line of our router; text names the request that it is about."""
        event = parse_event(line)
        if event is None:
            self._console.debug(line, "router")
        else:
            about = "" if event.request_id is None else f" [{event.request_id}]"
            self._console.relayed(line, event.level, event.text + about, "router")

    def stderr_of(self, source: str) -> LineHandler:
        """What is done with a child's stderr, whose end is shown if the child dies."""
        return lambda line: self._console.debug(line, source)

    def downloaded(self, path: str | None, count: int | None) -> None:
        """The weights are on this host."""
        words = ["weights are here", *([size(count)] if count else []), *([path] if path else [])]
        self._finish(Phase.DOWNLOAD, ", ".join(words), bytes=count, path=path)

    def loaded(self, num_shard: int) -> None:
        """Every shard answers."""
        total = self._sum(Phase.LOAD)[1]
        ready = "1 shard is" if num_shard == 1 else f"{num_shard} shards are"
        self._finish(Phase.LOAD, f"{ready} ready" + (f", {size(total)} of weights" if total else ""), bytes=total)

    def ready(self, url: str) -> None:
        """The router answers; warm-up is what it waited for."""
        if self._cache is None:
            self._finish(Phase.WARMUP, "done")
        else:
            tokens, count = self._cache
            self._finish(
                Phase.WARMUP, f"the cache holds {tokens:,} tokens in {size(count)}", tokens=tokens, bytes=count
            )
        seconds = time.monotonic() - self._origin
        self._console.info(f"ready after {seconds:.1f} s at {url}", phase="ready", seconds=round(seconds, 3), url=url)

    def _report(self, source: str, record: Record) -> bool:
        """Take a child's report on a phase; whether the line was one, and so needs no showing."""
        done, total = record.number("done"), record.number("total")
        if record.phase == Phase.WARMUP:
            self._cache = (record.number("tokens") or 0, record.number("bytes") or 0)
        elif record.phase in [*Phase, *COUNTED] and done is not None and total is not None:
            self._done[record.phase, source] = (done, total)
            self._console.progress(str(record.phase), *self._sum(record.phase), COUNTED.get(str(record.phase)))
        return record.phase in [*Phase, *COUNTED]

    def _finish(self, phase: Phase, message: str, **fields: object) -> None:
        self._console.end_progress()
        seconds = time.monotonic() - self._began
        self._console.info(f"{phase} {seconds:.1f} s: {message}", phase=phase, seconds=round(seconds, 3), **fields)

    def _sum(self, phase: str | None) -> tuple[int, int]:
        """Of all ranks."""
        reports = [report for (about, _), report in self._done.items() if about == phase]
        return sum(done for done, _ in reports), sum(total for _, total in reports)
