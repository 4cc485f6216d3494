"""Two launches on one host: the second gets places of its own, or is refused before it loads anything."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mocks.launched import Launched, Launcher, free_port, wait_for, write_router
from text_generation_launcher import router
from text_generation_launcher.context import LaunchContext
from text_generation_launcher.errors import LaunchError
from text_generation_launcher.hardware import Hardware
from text_generation_launcher.options import Options
from text_generation_launcher.places import Places
from text_generation_launcher.programs import Programs
from text_generation_launcher.settings import read_environment
from text_generation_server.reservations.holders import listeners

READY = "ready after"
FLAGS = {"flags": ["master-shard-uds-path", "port", "hostname", "prometheus-port"]}


def refused(second: Launched) -> str:
    """What a launch says that is refused before it starts anything."""
    code, _, err = second.end()
    assert code == 1 and not list(second.folder.glob("*.seen"))
    return err


@pytest.mark.parametrize(
    ("phase", "behaviour", "options"),
    [
        ("download", {"download": "hang"}, []),
        ("shard-0", {"shards": "hang"}, []),
        ("router", {"router": "hang"}, []),
        ("router", {"router": "hang"} | FLAGS, ["--router", "some-router"]),
    ],
    ids=["download", "load", "warm-up", "warm-up of another router"],
)
def test_a_port_is_taken_and_its_holder_named_before_it_listens(
    launcher: Launcher, tmp_path, phase, behaviour, options
):
    write_router(tmp_path)
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    first = launcher.start(*options, behaviour=behaviour, env=path)
    first.seen(phase)
    err = refused(launcher.start(port=first.port))
    assert f"port {first.port} on 127.0.0.1 is taken by process {first.process.pid} (" in err and "--port" in err
    err = refused(launcher.start("--hostname", "0.0.0.0", port=first.port))
    assert f"is taken by process {first.process.pid} (" in err
    assert first.end(signal.SIGTERM)[0] == 0


@pytest.mark.parametrize("phase", ["download", "shards"])
def test_a_socket_path_is_taken_before_it_exists(launcher: Launcher, phase: str):
    first = launcher.start("--num-shard", "2", behaviour={phase: "hang"})
    first.seen("download" if phase == "download" else "shard-1")
    err = refused(launcher.start("--shard-uds-path", str(first.folder / "socket")))
    assert f"{first.folder / 'socket-0'} is taken by process {first.process.pid} (" in err
    assert "--shard-uds-path" in err
    assert first.process.poll() is None
    assert first.end(signal.SIGTERM)[0] == 0


def test_other_ports_that_were_asked_for_are_taken_too(launcher: Launcher):
    metrics, master = str(free_port()), str(free_port())
    options = ["--num-shard", "2", "--prometheus-port", metrics, "--master-port", master, "--master-addr", "::1"]
    first = launcher.start(*options, behaviour={"download": "hang"})
    first.seen("download")
    err = refused(launcher.start("--prometheus-port", metrics))
    assert (
        f"port {metrics} on 127.0.0.1 is taken by process {first.process.pid} (" in err and "--prometheus-port" in err
    )
    err = refused(launcher.start("--num-shard", "2", "--prometheus-port", "0", "--master-port", master))
    assert f"port {master} on 0.0.0.0 is taken by process {first.process.pid} (" in err and "--master-port" in err
    assert first.end(signal.SIGTERM)[0] == 0


def launch_of(folder: Path, given: frozenset[str] = frozenset(), **options: object) -> LaunchContext:
    places = {"hostname": "127.0.0.1", "shard_uds_path": str(folder / "s"), "port": free_port()} | options
    return LaunchContext(Options(**places), given, read_environment({}), Programs("", (), ()), Hardware((), 1))


def test_defaults_that_are_taken_are_replaced_and_what_was_asked_for_is_not(tmp_path: Path):
    both = {"prometheus_port": free_port(), "master_port": free_port()}
    one, two = launch_of(tmp_path, **both), launch_of(tmp_path, **both)
    with Places(one, 2) as first, Places(two, 2) as second:
        assert (first.metrics_port, first.master_port) == tuple(both.values())
        assert first.socket_prefix == str(tmp_path / "s") and first.reasons == []
        assert second.metrics_port == 0 and second.master_port not in (0, first.master_port)
        assert second.socket_prefix == str(tmp_path / f"s-{two.options.port}")
        assert len(second.reasons) == 3 and all(f"by process {os.getpid()}" in reason for reason in second.reasons)
        for name in (*both, "shard_uds_path"):
            with pytest.raises(LaunchError, match=name.replace("_", "-")):
                Places(launch_of(tmp_path, frozenset([name]), **both), 2)
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_a_router_needs_to_start_is_given_back_when_it_has(tmp_path: Path):
    port = free_port()
    one, two = (launch_of(tmp_path, shard_uds_path=str(tmp_path / name)) for name in "st")
    with Places(one, 1, port) as places:
        with pytest.raises(
            LaunchError, match=rf"{port} on 0\.0\.0\.0 is taken by process {os.getpid()}.*another --router"
        ):
            Places(two, 1, port)
        places.admit_router()
        with socket.create_server(("0.0.0.0", port)):
            pass
        places.router_has_started()
        with Places(two, 1, port):
            pass


def test_a_refused_launch_keeps_nothing(tmp_path: Path):
    launch = launch_of(tmp_path, frozenset(["shard_uds_path"]), shard_uds_path="/no/such/folder")
    with pytest.raises(LaunchError, match="/no/such is no directory"):
        Places(launch, 1)
    with Places(launch_of(tmp_path, port=launch.options.port), 1):
        pass


IMPOSTOR = """
import socket, sys
place = socket.socket(fileno=int(sys.argv[1]))
print("ready", flush=True)
while True:
    connection, _ = place.accept()
    try:
        connection.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
    except OSError:
        pass
    connection.close()
"""


@contextmanager
def impostor(place: socket.socket) -> Iterator[None]:
    """A server of somebody else's, a process of its own, which answers everyone."""
    command = [sys.executable, "-c", IMPOSTOR, str(place.fileno())]
    with subprocess.Popen(command, pass_fds=[place.fileno()], stdout=subprocess.PIPE) as server:
        place.close()
        assert server.stdout is not None and server.stdout.readline() == b"ready\n"
        try:
            time.sleep(0.5)  # several questions of a launcher that waits
            yield
        finally:
            server.kill()


def test_another_server_at_the_port_is_not_taken_for_the_router(launcher: Launcher):
    """It came between the launcher's reservation and the router."""
    first = launcher.start(behaviour={"router": "wait"})
    first.seen("router")
    stolen = socket.create_server(("127.0.0.1", first.port))
    with impostor(stolen):
        (first.folder / "go").touch()
        code, out, err = first.end()
    assert code == 1 and READY not in out
    assert "router" in err and "Address already in use" in err


async def test_a_server_that_came_while_the_router_was_looked_for_is_not_taken_for_it(monkeypatch):
    looks = iter([frozenset()])  # nobody listens yet
    monkeypatch.setattr(router, "listeners", lambda port: next(looks, listeners(port)))
    place = socket.create_server(("127.0.0.1", 0))
    port = place.getsockname()[1]
    with impostor(place), subprocess.Popen(["sleep", "60"]) as waiting:
        healthy = await router._healthy(waiting.pid, "127.0.0.1", port, None)
        waiting.kill()
    assert not healthy


def test_another_server_at_the_socket_is_not_taken_for_the_shard_and_survives(launcher: Launcher):
    """It does not know of locks, and came after the launcher had looked."""
    first = launcher.start(behaviour={"shards": "late"})
    first.seen("shard-0")
    path = first.folder / "socket-0"
    stolen = socket.socket(socket.AF_UNIX)
    stolen.bind(str(path))
    stolen.listen()
    with impostor(stolen):
        (first.folder / "go").touch()
        wait_for(lambda: first.process.poll() is not None, "its end")
        assert path.exists()
        path.unlink()
    code, out, err = first.end()
    assert code == 1 and READY not in out and "weights are here" in out and "ready," not in out
    assert "shard-0" in err and "Address already in use" in err
