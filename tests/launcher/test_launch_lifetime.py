"""Start, readiness, death and shutdown of launches, over stub executables (docs/launcher.md#readiness-and-end)."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mocks.launched import Launcher, alive, wait_for

READY = "ready after"
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def test_a_launch_tells_its_phases_and_ends_on_a_signal(launcher: Launcher):
    running = launcher.start("--num-shard", "2")
    text = running.read_until(READY)
    code, _, err = running.end(signal.SIGTERM)
    assert (code, err) == (0, "")
    assert "download 0." in text and "3.0 MiB" in text
    assert "2 shards are ready, 4.0 MiB of weights" in text
    assert "the cache holds 123,456 tokens in 5.00 GiB" in text
    assert f"http://127.0.0.1:{running.port}" in text
    assert running.events()[0] == "router stopped"
    assert sorted(running.events()[1:]) == ["shard-0 stopped", "shard-1 stopped"]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("behaviour", "role"),
    [
        ({"download": "hang"}, "download"),
        ({"shards": "hang"}, "shard-0"),
        ({"router": "hang"}, "router"),
        ({}, "router"),
    ],
    ids=["download", "load", "warm-up", "serving"],
)
def test_a_signal_in_any_phase_ends_all_cleanly(launcher: Launcher, number: signal.Signals, behaviour, role: str):
    running = launcher.start("-g", "5", behaviour=behaviour)
    running.seen(role)
    code, _, err = running.end(number)
    assert (code, err) == (0, "")


def test_a_shard_that_dies_while_loading_ends_all_and_is_quoted(launcher: Launcher):
    code, out, err = launcher.start("--num-shard", "2", behaviour={"shard-1": "die", "shard-0": "hang"}).end()
    assert code == 1
    assert "the model does not fit" in err
    assert "shard-1" in err and "exit code 7" in err
    assert READY not in out


def test_the_router_starts_while_shards_load(launcher: Launcher):
    running = launcher.start(behaviour={"shards": "late"})
    assert running.seen("router")["env"]["AWAIT_SHARDS"] == "true"
    assert not (running.folder / "socket-0").exists()
    (running.folder / "go").touch()
    text = running.read_until(READY)
    assert running.end(signal.SIGTERM)[0] == 0
    assert text.index(" load ") < text.index(" warmup ")


def test_a_shard_killed_while_serving_ends_all_and_is_quoted(launcher: Launcher):
    running = launcher.start("--num-shard", "2")
    running.read_until(READY)
    (running.folder / "die-0").touch()
    code, _, err = running.end()
    assert code == 1
    assert "out of luck" in err
    assert "shard-0" in err and "SIGKILL" in err
    assert running.events() == ["router stopped", "shard-1 stopped"]


def test_a_router_that_exits_ends_all_even_with_code_0(launcher: Launcher):
    running = launcher.start(behaviour={"router": "exit"})
    code, _, err = running.end()
    assert code == 1
    assert "the router has had enough" in err and "router" in err and "exit code 0" in err
    assert running.events() == ["shard-0 stopped"]


def test_a_failed_download_is_quoted(launcher: Launcher):
    running = launcher.start(behaviour={"download": "fail"})
    code, _, err = running.end()
    assert code == 1
    assert "no weights at all in this place" in err and "some/model" in err
    assert not (running.folder / "shard-0.seen").exists()


def test_a_shard_that_ignores_the_signal_is_killed_after_the_grace(launcher: Launcher):
    running = launcher.start("--graceful-termination-timeout", "0", behaviour={"shards": "stubborn"})
    running.read_until(READY)
    assert running.end(signal.SIGTERM)[0] == 0


def test_a_second_signal_does_not_wait(launcher: Launcher):
    running = launcher.start("--graceful-termination-timeout", "3600", behaviour={"shards": "stubborn"})
    running.read_until(READY)
    running.process.send_signal(signal.SIGINT)
    running.read_until("stopping")
    assert running.end(signal.SIGINT)[0] == 0


def test_children_die_with_a_launcher_that_is_killed(launcher: Launcher):
    running = launcher.start()
    running.read_until(READY)
    pids = [running.seen(role)["pid"] for role in ("shard-0", "router")]
    running.process.kill()
    wait_for(lambda: not any(map(alive, pids)), "the children's end")


def test_much_stderr_blocks_nobody(launcher: Launcher):
    running = launcher.start(behaviour={"shards": "flood"})
    running.read_until(READY)
    (running.folder / "die-0").touch()
    _, _, err = running.end()
    assert "warning 19999" in err and "out of luck" in err and "warning 19000" not in err


def test_a_stale_socket_is_removed_and_not_taken_for_readiness(launcher: Launcher):
    running = launcher.start(behaviour={"shards": "hang"})
    running.seen("shard-0")
    running.end(signal.SIGTERM)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(running.folder / "socket-0"))
    again = launcher.start(folder=running.folder)
    again.read_until(READY)
    assert again.end(signal.SIGTERM)[0] == 0


def test_a_taken_port_is_named_before_anything_starts(launcher: Launcher):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        running = launcher.start(port=port)
        code, _, err = running.end()
    assert code == 1
    assert f"port {port} on 127.0.0.1 is taken" in err and "--port" in err
    assert not (running.folder / "download.seen").exists()


def test_a_socket_of_a_living_server_is_named_and_left_alone(launcher: Launcher):
    first = launcher.start()
    first.read_until(READY)
    second = launcher.start("--shard-uds-path", str(first.folder / "socket"))
    code, _, err = second.end()
    assert code == 1
    assert f"{first.folder / 'socket-0'} is taken by process {first.process.pid}" in err
    assert (first.folder / "socket-0").exists()
    assert first.end(signal.SIGTERM)[0] == 0


def test_two_launchers_share_a_host(launcher: Launcher):
    both = [launcher.start("--prometheus-port", "0") for _ in range(2)]
    for running in both:
        running.read_until(READY)
    assert [running.end(signal.SIGTERM)[0] for running in both] == [0, 0]


def test_json_output_is_an_object_a_line(launcher: Launcher):
    running = launcher.start("--json-output")
    lines = [json.loads(line) for line in running.read_until(READY).splitlines() if line != "the router listens"]
    running.end(signal.SIGTERM)
    phases = [line["fields"]["phase"] for line in lines if "phase" in line["fields"]]
    assert phases == ["download", "load", "warmup", "ready"]
    (load,) = [line["fields"] for line in lines if line["fields"].get("phase") == "load"]
    assert load["bytes"] == 2 << 20 and load["seconds"] > 0


def test_shard_lines_are_relayed_with_their_rank(launcher: Launcher):
    running = launcher.start("--num-shard", "2")
    text = running.read_until(READY)
    running.end(signal.SIGTERM)
    for rank in range(2):
        assert f"WARN shard-{rank}: greetings from shard-{rank}" in text
    assert "loading on the way" not in text and "a line that is no JSON" not in text


def test_debug_shows_every_line(launcher: Launcher):
    running = launcher.start(env={"LOG_LEVEL": "debug"})
    text = running.read_until(READY)
    running.end(signal.SIGTERM)
    assert "DEBUG shard-0: a line that is no JSON" in text


def test_a_path_that_is_no_socket_is_left_alone(launcher: Launcher, tmp_path: Path):
    (tmp_path / "s-0").write_text("precious")
    code, _, err = launcher.start("--shard-uds-path", str(tmp_path / "s")).end()
    assert code == 1 and "is no socket" in err
    assert (tmp_path / "s-0").read_text() == "precious"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_imports_ends_it_cleanly(tmp_path: Path, number: signal.Signals):
    (tmp_path / "typer.py").write_text(f"import os, time\nos.kill(os.getpid(), {number})\ntime.sleep(30)\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    command = [sys.executable, "-m", "text_generation_launcher"]
    answer = subprocess.run(command, env={"PYTHONPATH": path}, capture_output=True, text=True, timeout=60)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


def test_an_address_of_another_host_is_named(launcher: Launcher):
    code, _, err = launcher.start("--hostname", "203.0.113.7").end()
    assert code == 1 and "203.0.113.7 is no address of this host" in err
