"""A directory is built whole or not at all, once, whoever else builds it and however a builder ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from text_generation_server.weights.atomic import build_once

_BUILD = """
import sys
from pathlib import Path
from text_generation_server.weights.atomic import build_once

def build(draft):
    (draft / "a").write_text("half")
    print("begun", flush=True)
    sys.stdin.read()
    (draft / "a").write_text("whole")

print((build_once(Path(sys.argv[1]), build) / "a").read_text())
"""


def _write(draft: Path) -> None:
    (draft / "a").write_text("whole")


def _start_builder(target: Path, stdin: int) -> subprocess.Popen[str]:
    """A process that begins to build, says so, and goes on when its standard input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", _BUILD, str(target)],
        stdin=stdin,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


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
    target = tmp_path / "cache" / "model"
    builders = [_start_builder(target, subprocess.DEVNULL) for _ in range(3)]
    outputs = [builder.communicate()[0].split() for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0, 0]
    assert sorted(outputs) == [["begun", "whole"], ["whole"], ["whole"]], "one builds, the others wait"
    assert sorted(path.name for path in target.parent.iterdir()) == [".model.lock", "model"]


def test_the_draft_of_a_killed_process_is_swept(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with _start_builder(target, subprocess.PIPE) as builder:
        assert builder.stdout is not None
        assert builder.stdout.readline() == "begun\n"
        builder.kill()
    assert not target.exists()
    assert len(list(tmp_path.glob(".model.draft-*"))) == 1
    build_once(target, _write)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".model.lock", "model"]
