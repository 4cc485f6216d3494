"""The command `text-generation-benchmark http`: the order of things, and the outcome as an exit code."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from text_generation_benchmark.errors import BenchmarkError
from text_generation_benchmark.http.client import Client, introduce
from text_generation_benchmark.http.compare import Measured, read
from text_generation_benchmark.http.figures import figures
from text_generation_benchmark.http.plot import draw
from text_generation_benchmark.http.progress import Progress
from text_generation_benchmark.http.report import cell_of, document, markdown
from text_generation_benchmark.http.settings import Settings, read_settings
from text_generation_benchmark.http.sweep import sweep
from text_generation_benchmark.http.targets import Target
from text_generation_benchmark.http.vocabulary import of_tokenizer, of_words
from text_generation_benchmark.http.workload import Requests
from text_generation_benchmark.plots import require_matplotlib

_FAILED, _INTERRUPTED = 1, 130


def main(arguments: Sequence[str]) -> int:
    """Measure and report. 0: done; 1: a request failed, or not everything was measured; 130: Ctrl-C."""
    settings, progress = read_settings(arguments), Progress(sys.stderr)
    try:
        return _run(settings, progress)
    except BenchmarkError as error:
        return _complain(progress, error)


def _run(settings: Settings, progress: Progress) -> int:
    """Whatever has been measured is reported, even if the rest could not be."""
    if settings.outputs.plot is not None:
        require_matplotlib("--plot")
    found = [_begin(settings, source) for source in settings.sources]
    if len(found) == 2 and found[0]["name"] == found[1]["name"]:
        found[1]["name"] += " (2)"
    targets = [source for source in settings.sources if isinstance(source, Target)]
    measuring = [one for one, source in zip(found, settings.sources, strict=True) if isinstance(source, Target)]
    code = 0
    if targets:
        try:
            with asyncio.Runner(loop_factory=_new_loop) as runner:
                runner.run(_measure(settings, targets, measuring, progress))
        except BenchmarkError as error:
            code = _complain(progress, error)
        except KeyboardInterrupt:
            progress.line("interrupted")
            code = _INTERRUPTED
    if not all(one["cells"] for one in found):
        return code or _FAILED
    _report(settings, found, progress)
    failed = any(cell["failed"] for one in measuring for cell in one["cells"])
    return code or (_FAILED if failed else 0)


def _begin(settings: Settings, source: Target | Path) -> Measured:
    """What a file holds, or an empty measurement of a server."""
    if isinstance(source, Path):
        return read(source)
    return {"name": source.url, "server": {}, "settings": settings.parameters(), "cells": []}


async def _measure(
    settings: Settings, targets: Sequence[Target], measured: Sequence[Measured], progress: Progress
) -> None:
    """Fill in what servers say of themselves, and their cells one by one."""
    vocabulary = of_words() if settings.tokenizer is None else of_tokenizer(settings.tokenizer)
    clients = [Client(target, settings.wishes, settings.headers, settings.timeout_s) for target in targets]
    try:
        for client, one in zip(clients, measured, strict=True):
            one["server"] = await introduce(client)
        async for cell, runs in sweep(clients, settings.plan, Requests(vocabulary, settings.plan.seed), progress):
            for one, own in zip(measured, runs, strict=True):
                one["cells"].append(cell_of(cell, figures(own, settings.goals_ms), own if settings.outputs.raw else ()))
    finally:
        for client in clients:
            client.close()


def _report(settings: Settings, measured: Sequence[Measured], progress: Progress) -> None:
    outputs, found = settings.outputs, document(measured)
    tables = markdown(found)
    print(tables)
    if outputs.json is not None:
        _write(outputs.json, json.dumps(found, indent=None if outputs.raw else 2) + "\n", progress)
    if outputs.markdown is not None:
        _write(outputs.markdown, tables, progress)
    if outputs.plot is not None:
        draw(outputs.plot, measured)
        progress.line(f"drew {outputs.plot}")


def _write(path: Path, text: str, progress: Progress) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    progress.line(f"wrote {path}")


def _new_loop() -> asyncio.AbstractEventLoop:
    """The same kind as the router's: it costs least where there is one for this platform."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def _complain(progress: Progress, error: BenchmarkError) -> int:
    progress.line(f"text-generation-benchmark http: {error}")
    return _FAILED
