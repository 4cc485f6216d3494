"""Ports and socket paths that are one process's before it listens there, and who is said to have them."""

import os
import socket
import subprocess
import sys

import pytest

from text_generation_server.reservations.holders import Taken, belongs_to, describe, here, listener, listeners
from text_generation_server.reservations.ports import reserve_port
from text_generation_server.reservations.sockets import Unusable, reserve_socket

LOCAL, EVERYWHERE = "127.0.0.1", "0.0.0.0"
ME = f"process {os.getpid()} "
CHILD = """
import sys
from pathlib import Path
from text_generation_server.reservations.holders import Taken
from text_generation_server.reservations.ports import reserve_port
from text_generation_server.reservations.sockets import reserve_socket
try:
    reserve_port("127.0.0.1", int(sys.argv[2])) if sys.argv[1] == "port" else reserve_socket(Path(sys.argv[2]))
except Taken as error:
    sys.exit(str(error))
"""


def child(kind: str, place: object, group: str = "") -> subprocess.CompletedProcess[str]:
    """Reserve in a child of this process, or of a shell that it starts."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", CHILD, kind, str(place)]
    if group:
        command = ["sh", "-c", '"$@"; exit $?', "sh", *command]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def try_to_bind(port: int, address: str = LOCAL, reuse: int = 1) -> socket.socket:
    """What any server does."""
    other = socket.socket()
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
    try:
        other.bind((address, port))
        other.listen()
    except OSError:
        other.close()
        raise
    return other


@pytest.mark.parametrize("address", [LOCAL, EVERYWHERE])
@pytest.mark.parametrize("reuse", [0, 1])
def test_no_program_binds_a_reserved_port_and_nobody_can_connect(address: str, reuse: int):
    with reserve_port(LOCAL, 0) as place:
        with pytest.raises(OSError, match="in use"):
            try_to_bind(place.port, address, reuse)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((LOCAL, place.port))
    try_to_bind(place.port, address).close()


@pytest.mark.parametrize("wide", [EVERYWHERE, "::"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_second_reservation_names_the_holder_also_while_a_child_is_let_in(shared: bool, wide: str):
    with reserve_port(LOCAL, 0) as place:
        if shared:
            place.share()
        for address in (LOCAL, wide):
            with pytest.raises(Taken, match=f"port {place.port} on .* is taken by {ME}"):
                reserve_port(address, place.port)


def test_the_same_port_of_two_addresses_is_two_ports():
    with reserve_port(LOCAL, 0) as place, reserve_port("127.0.0.2", place.port) as other:
        assert other.port == place.port
        other.share()
    with reserve_port(LOCAL, place.port):
        pass


def test_a_listener_that_reserved_nothing_is_named():
    with socket.create_server((LOCAL, 0)) as taken, pytest.raises(Taken, match=ME):
        reserve_port(LOCAL, taken.getsockname()[1])


def test_a_port_with_lingering_connections_is_free_for_a_new_server():
    with socket.create_server((LOCAL, 0)) as old:
        port = old.getsockname()[1]
        with socket.create_connection((LOCAL, port)) as client:
            old.accept()[0].close()
            assert client.recv(1) == b""
    with pytest.raises(OSError, match="in use"):  # which is what this test needs
        try_to_bind(port, reuse=0)
    with reserve_port(LOCAL, port) as place:
        place.share()
        place.socket.listen()
        socket.create_connection((LOCAL, port)).close()


def test_a_child_listens_beside_a_shared_reservation_and_nobody_beside_the_child():
    with reserve_port(LOCAL, 0) as place:
        place.share()
        with try_to_bind(place.port) as listening:
            socket.create_connection((LOCAL, place.port)).close()
            listening.accept()[0].close()
            with pytest.raises(OSError, match="in use"):
                try_to_bind(place.port)


@pytest.mark.parametrize("group", ["", "through a shell"])
def test_what_a_parent_has_is_its_childrens(tmp_path, group: str):
    with reserve_port(LOCAL, 0) as place, reserve_socket(tmp_path / "s-0"):
        assert "is taken" in child("port", place.port, group).stderr
        place.share()
        for kind, what in (("port", place.port), ("path", tmp_path / "s-0")):
            done = child(kind, what, group)
            assert (done.returncode, done.stderr) == (0, "")
        assert (tmp_path / "s-0.lock").exists()


def test_a_reserved_path_is_taken_before_anything_listens_and_leaves_nothing(tmp_path):
    with reserve_socket(tmp_path / "s-0"):
        with pytest.raises(Taken, match=f"s-0 is taken by {ME}"):
            reserve_socket(tmp_path / "s-0")
        reserve_socket(tmp_path / "s-1").close()
    assert list(tmp_path.iterdir()) == []


def test_ids_of_another_container_are_not_taken_for_ours(tmp_path):
    with reserve_socket(tmp_path / "s-0"):
        (tmp_path / "s-0.lock").write_text(f"{os.getppid()} {here()}-other")
        with pytest.raises(Taken, match="is taken by another process"):
            reserve_socket(tmp_path / "s-0")


def test_a_dead_holder_and_its_socket_make_way(tmp_path):
    path = tmp_path / "s-0"
    (tmp_path / "s-0.lock").write_text(f"1 {here()}")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with reserve_socket(path) as place:
        assert not path.exists()
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(str(path))
        place.close()
    assert list(tmp_path.iterdir()) == []


def test_a_living_server_without_a_lock_keeps_its_socket_through_all(tmp_path):
    path = tmp_path / "s-0"
    place = reserve_socket(path)
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen()
        place.close()
        with pytest.raises(Taken, match=ME):
            reserve_socket(path)
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path))
            assert listener(caller) == os.getpid()
    assert [found.name for found in tmp_path.iterdir()] == ["s-0"]


def test_a_lock_that_cannot_be_had_is_explained(tmp_path):
    (tmp_path / "s-0.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unusable, match=r"s-0 cannot be reserved: .*s-0\.lock"):
        reserve_socket(tmp_path / "s-0")
    assert not (tmp_path / "elsewhere").exists()


def test_a_process_is_described_by_its_program_and_never_its_arguments():
    command = [sys.executable, "-c", "input(0)", "--api-key", "secret"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as python:
        assert python.stdout.read(1) == b"0"  # it runs
        assert describe(python.pid).startswith(f"process {python.pid} (python")
        assert "secret" not in describe(python.pid)
        assert belongs_to(python.pid, os.getpid()) and not belongs_to(os.getpid(), python.pid)
        python.communicate(b"\n")
    assert describe(None) == "another process"


def test_listeners_are_those_of_the_port():
    with socket.create_server((LOCAL, 0)) as one, socket.socket() as bound:
        bound.bind((LOCAL, 0))
        assert listeners(one.getsockname()[1]) == {os.getpid()}
        assert listeners(bound.getsockname()[1]) == frozenset()
