"""How a shard process ends: by signals in every phase, by a fatal error, by a start that fails."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest

from text_generation_protocol.v3 import generate_pb2 as pb
from text_generation_protocol.v3 import generate_pb2_grpc as rpc

PATIENCE_S = 30


class Process:
    """A running `scripted_shard.py`."""

    def __init__(self, socket: Path, start: str) -> None:
        self.socket = socket
        script = Path(__file__).with_name("scripted_shard.py")
        self.child = subprocess.Popen(
            [sys.executable, script, socket, start],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        assert self.says() == "starting"

    def says(self) -> str:
        return self.child.stdout.readline().strip()

    def wait_for_socket(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not self.socket.exists():
            assert self.child.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)

    def end(self) -> tuple[int, str]:
        """Exit code and stderr."""
        _, stderr = self.child.communicate(timeout=PATIENCE_S)
        return self.child.returncode, stderr


@pytest.fixture
def process(tmp_path):
    """Start shard processes; none outlives the test."""
    running = []

    def start(how: str = "well") -> Process:
        running.append(Process(tmp_path / "tgi-0", how))
        return running[-1]

    yield start
    for item in running:
        item.child.kill()
        item.child.communicate()


def prefill(text):
    message = pb.Request(inputs=text, stopping_parameters=pb.StoppingCriteriaParameters(max_new_tokens=1))
    return pb.PrefillRequest(batch=pb.Batch(requests=[message]))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_serving_shard_cleanly(process, number):
    shard = process()
    shard.wait_for_socket()
    shard.child.send_signal(number)
    assert shard.end() == (0, "")
    assert not shard.socket.exists()


def test_a_signal_does_not_wait_for_a_long_step(process):
    shard = process()
    shard.wait_for_socket()
    with grpc.insecure_channel(f"unix://{shard.socket}") as channel:
        call = rpc.TextGenerationServiceStub(channel).Prefill.future(prefill("M"))
        assert shard.says() == "stepping"
        shard.child.terminate()
        assert shard.end() == (0, "")
        assert call.exception(timeout=PATIENCE_S) is not None
    assert not shard.socket.exists()


def test_a_signal_ends_a_shard_that_is_still_loading(process):
    shard = process("slow")
    shard.child.terminate()
    assert shard.end() == (0, "")
    assert not shard.socket.exists()


def test_an_unrecoverable_error_is_answered_and_ends_the_process(process):
    shard = process()
    shard.wait_for_socket()
    with grpc.insecure_channel(f"unix://{shard.socket}") as channel, pytest.raises(grpc.RpcError) as caught:
        rpc.TextGenerationServiceStub(channel).Prefill(prefill("L"), timeout=PATIENCE_S)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INTERNAL, "device lost")
    code, stderr = shard.end()
    assert code == 1 and "device lost" in stderr
    assert not shard.socket.exists()


def test_an_impossible_start_says_why_in_one_line(process):
    code, stderr = process("impossible").end()
    assert code == 1
    assert "Error: there is no such model" in stderr.splitlines()
    assert "Traceback" not in stderr


def test_a_bug_at_the_start_shows_its_traceback(process):
    code, stderr = process("broken").end()
    assert code == 1
    assert "Traceback" in stderr and "ValueError: a bug" in stderr


def test_a_killed_shard_leaves_its_socket_and_the_next_one_takes_it(process):
    first = process()
    first.wait_for_socket()
    first.child.kill()
    assert first.end()[0] == -signal.SIGKILL
    assert first.socket.exists()
    second = process()
    with grpc.insecure_channel(f"unix://{second.socket}") as channel:
        stub = rpc.TextGenerationServiceStub(channel)
        assert stub.Health(pb.HealthRequest(), wait_for_ready=True, timeout=PATIENCE_S) == pb.HealthResponse()


def test_a_shard_refuses_the_socket_of_a_living_one(process):
    first = process()
    first.wait_for_socket()
    code, stderr = process().end()
    assert code == 1 and f"is taken by process {first.child.pid} (scripted_shard.py)" in stderr
    assert first.child.poll() is None and first.socket.exists()


def test_a_shard_refuses_the_socket_of_one_that_still_loads(process):
    first = process("slow")
    assert first.says() == "loading" and not first.socket.exists()
    code, stderr = process().end()
    assert code == 1 and f"is taken by process {first.child.pid} (scripted_shard.py)" in stderr
    first.child.send_signal(signal.SIGTERM)
    assert first.end()[0] == 0
    assert not list(first.socket.parent.glob("tgi*"))
