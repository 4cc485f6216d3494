"""Routers of other makers: the Python inside them, the port that some cannot give up (docs/launcher.md)."""

import os
import re
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import transformers

from mocks.launched import Launched, Launcher, write_router
from text_generation_launcher.router import RouterProgram

FLAGS = "master-shard-uds-path port hostname payload-limit usage-stats prometheus-port"
PACKAGES = str(Path(transformers.__file__).parents[1])


def start(launcher: Launcher, program: Path, router: str = "ok", flags: str = FLAGS, **env: str) -> Launched:
    behaviour = {"flags": flags.split(), "router": router}
    return launcher.start("--router", str(program), behaviour=behaviour, env=env)


@pytest.mark.parametrize("given", ["", "/mine"])
def test_it_is_offered_our_packages_behind_those_of_the_user(launcher: Launcher, tmp_path: Path, given: str):
    running = start(launcher, write_router(tmp_path), PYTHONPATH=given)
    path = running.seen("router")["env"]["PYTHONPATH"]
    assert path.split(os.pathsep) == [*filter(None, [given]), PACKAGES]
    assert running.end(signal.SIGTERM)[0] == 0


def test_our_own_router_is_offered_nothing(launcher: Launcher):
    running = launcher.start(env={"PYTHONPATH": "/mine"})
    assert running.seen("router")["env"]["PYTHONPATH"] == "/mine"
    assert running.end(signal.SIGTERM)[0] == 0


def test_one_that_dies_of_an_import_is_quoted_with_what_to_do(launcher: Launcher, tmp_path: Path):
    code, out, err = start(launcher, write_router(tmp_path), "no packages").end()
    assert code == 1 and "No module named 'transformers'" in out
    assert "We cannot load a tokenizer" in err and "ended with exit code 1" in err
    assert "install transformers for that Python and name the folder in PYTHONPATH" in err
    assert f"it was offered {PACKAGES}" in err


def test_one_that_serves_all_the_same_is_warned_of(launcher: Launcher, tmp_path: Path):
    running = start(launcher, write_router(tmp_path), "no packages, no end")
    assert "WARN launcher: The router runs Python inside" in running.read_until("ready after")
    assert running.end(signal.SIGTERM)[0] == 0


def test_one_with_another_python_is_offered_nothing(launcher: Launcher, tmp_path: Path):
    program = write_router(tmp_path)
    with program.open("a") as text:
        text.write("# libpython3.4m.so.1.0\n")
    running = start(launcher, program, "no packages", PYTHONPATH="/mine")
    assert running.seen("router")["env"]["PYTHONPATH"] == "/mine"
    _, _, err = running.end()
    ours = ".".join(map(str, sys.version_info[:2]))
    assert "install transformers for Python 3.4 and" in err
    assert f"(this installation's are for Python {ours})" in err


@pytest.mark.parametrize(
    ("flags", "port"),
    [
        ("port", None),  # 2.0 to 2.2 open none
        ("port usage-stats", 9000),
        ("port usage-stats prometheus-port", None),
    ],
)
def test_the_metrics_port_is_fixed_where_there_is_no_flag_for_it(flags: str, port: int | None):
    program = RouterProgram(("router",), frozenset(f"--{name}" for name in flags.split()))
    assert program.fixed_metrics_port == port
    assert RouterProgram(("ours",), None).fixed_metrics_port is None


def test_a_fixed_metrics_port_that_is_taken_is_named_before_anything_starts(launcher: Launcher, tmp_path: Path):
    with socket.socket() as place:
        with suppress(OSError):  # somebody else has it
            place.bind(("0.0.0.0", 9000))
            place.listen()
        running = start(launcher, write_router(tmp_path), flags=FLAGS.replace("prometheus-port", ""))
        code, _, err = running.end()
    assert code == 1 and re.search(r"port 9000 on \S+ is taken by", err) and "another --router" in err
    assert not list(running.folder.glob("*.seen"))
