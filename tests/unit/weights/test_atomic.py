"""A directory is built whole or not at all, once, whoever else builds it and however a builder ends."""

import multiprocessing
import os
import signal
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from text_generation_server.weights.atomic import build_once

_SPAWN = multiprocessing.get_context("spawn")


def _write(draft: Path) -> None:
    (draft / "a").write_text("whole")


def _build_and_note(target: Path, notes: Path, start: Event) -> None:
    def build(draft: Path) -> None:
        (notes / str(os.getpid())).touch()
        _write(draft)

    start.wait()
    build_once(target, build)
    assert (target / "a").read_text() == "whole"


def _build_and_hang(target: Path, begun: Event) -> None:
    def build(draft: Path) -> None:
        (draft / "half").write_text("half")
        begun.set()
        signal.pause()

    build_once(target, build)


def test_it_is_built_once(tmp_path: Path) -> None:
    target = tmp_path / "cache" / "model"
    assert build_once(target, _write) == target
    build_once(target, lambda draft: pytest.fail("it is there already"))
    assert (target / "a").read_text() == "whole"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failed_build_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def fail(draft: Path) -> None:
        _write(draft)
        raise error

    with pytest.raises(error):
        build_once(tmp_path / "model", fail)
    assert [path.name for path in tmp_path.iterdir()] == [".model.lock"]
    assert (build_once(tmp_path / "model", _write) / "a").is_file()


def test_processes_that_build_at_once_all_succeed(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    start = _SPAWN.Event()
    target = tmp_path / "cache" / "model"
    builders = [_SPAWN.Process(target=_build_and_note, args=(target, notes, start)) for _ in range(3)]
    for builder in builders:
        builder.start()
    start.set()
    for builder in builders:
        builder.join()
    assert [builder.exitcode for builder in builders] == [0, 0, 0]
    assert len(list(notes.iterdir())) == 1, "one builds, the others wait"
    assert sorted(path.name for path in target.parent.iterdir()) == [".model.lock", "model"]


def test_the_draft_of_a_killed_process_is_swept(tmp_path: Path) -> None:
    begun = _SPAWN.Event()
    target = tmp_path / "model"
    builder = _SPAWN.Process(target=_build_and_hang, args=(target, begun))
    builder.start()
    assert begun.wait(60)
    builder.kill()
    builder.join()
    assert not target.exists()
    assert len(list(tmp_path.glob(".model.draft-*"))) == 1
    build_once(target, _write)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".model.lock", "model"]
