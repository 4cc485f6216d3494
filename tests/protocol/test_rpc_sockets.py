"""A shard's socket: private, ready when it exists, never taken from a living process; what followers answer there."""

import os
import socket
import stat
import threading

import grpc
import pytest

from text_generation_protocol.v2 import generate_pb2_grpc as grpc_v2
from text_generation_protocol.v3 import generate_pb2 as pb_v3
from text_generation_protocol.v3 import generate_pb2_grpc as grpc_v3
from text_generation_server.engine.types import ShardInfo
from text_generation_server.errors import SocketInUse, StartError
from text_generation_server.reservations.sockets import LONGEST_PATH
from text_generation_server.rpc.server import ShardServer
from text_generation_server.rpc.service import FollowerService, Shard
from text_generation_server.rpc.sockets import make_way, reserve, socket_path, socket_url
from text_generation_server.rpc.wire_v2 import WireV2
from text_generation_server.rpc.wire_v3 import WireV3

INFO = ShardInfo("torch.float32", "cpu", "paged", block_size=16, prefix_caching=False, chunking=True)


def follower_server(path, worker) -> ShardServer:
    shard = Shard(INFO, ("unix:///run/tgi-0",))
    v2, v3 = (FollowerService(wire, shard, worker) for wire in (WireV2(), WireV3(False)))
    return ShardServer(path, v2, v3, on_fatal=lambda: None)


class Worker:
    """Something that lives as long as it is said to."""

    alive = True


@pytest.fixture
def follower(tmp_path):
    """A follower's v3 stub and the worker behind it."""
    path, worker = tmp_path / "tgi-1", Worker()
    server = follower_server(path, worker)
    server.start()
    with grpc.insecure_channel(socket_url(path)) as channel:
        yield grpc_v3.TextGenerationServiceStub(channel), worker
    server.stop(grace_s=0)


def left_behind(path) -> None:
    """What a killed server leaves: a socket nobody listens on."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


def test_the_socket_exists_only_once_the_shard_answers(tmp_path):
    path = tmp_path / "tgi-1"
    server = follower_server(path, Worker())
    assert not path.exists()
    server.start()
    with grpc.insecure_channel(socket_url(path)) as channel:
        stub = grpc_v2.TextGenerationServiceStub(channel)
        assert stub.Info(pb_v3.InfoRequest()).dtype == "torch.float32"
    server.stop(grace_s=0)
    assert not path.exists()


def test_the_socket_is_for_its_owner_only(shard):
    mode = shard.path.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) & 0o077 == 0


def test_paths_are_absolute_and_end_with_the_rank(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert socket_path(tmp_path.relative_to(tmp_path) / "tgi", 3) == tmp_path / "tgi-3"
    assert socket_url(tmp_path / "tgi-3") == f"unix://{tmp_path}/tgi-3"


def test_a_stale_socket_is_removed(tmp_path):
    left_behind(tmp_path / "tgi-0")
    make_way(tmp_path / "tgi-0")
    assert not (tmp_path / "tgi-0").exists()


def test_a_stale_socket_does_not_hinder_a_start(tmp_path, start_shard, engine):
    left_behind(tmp_path / "tgi-0")
    assert start_shard(engine).v3.Health(pb_v3.HealthRequest()) == pb_v3.HealthResponse()


def test_a_living_server_keeps_its_socket(shard, start_shard, engine):
    with pytest.raises(SocketInUse, match=f"is taken by process {os.getpid()}.*--uds-path"):
        make_way(shard.path)
    assert shard.v3.Health(pb_v3.HealthRequest()) == pb_v3.HealthResponse()


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "tgi-0").write_text("precious")
    with pytest.raises(StartError, match="is no socket"):
        make_way(tmp_path / "tgi-0")
    assert (tmp_path / "tgi-0").read_text() == "precious"


def test_impossible_paths_are_explained(tmp_path):
    with pytest.raises(StartError, match="is no directory"):
        reserve(tmp_path / "absent" / "tgi-0")
    with pytest.raises(StartError, match=f"longer than {LONGEST_PATH} bytes"):
        reserve(tmp_path / ("x" * LONGEST_PATH))


def test_a_second_server_does_not_start(tmp_path):
    servers = [follower_server(tmp_path / "tgi-0", Worker()) for _ in range(2)]
    servers[0].start()
    with pytest.raises(SocketInUse):
        servers[1].start()
    servers[1].stop(grace_s=0)
    assert servers[0].path.exists()
    servers[0].stop(grace_s=0)


def test_a_server_leaves_the_socket_that_took_the_place_of_its_own(tmp_path):
    path = tmp_path / "tgi-0"
    server = follower_server(path, Worker())
    server.start()
    path.rename(tmp_path / "old")
    left_behind(path)
    server.stop(grace_s=0)
    assert path.exists()


def test_followers_answer_status_calls(follower):
    stub, _ = follower
    assert stub.Info(pb_v3.InfoRequest()).block_size == 16
    assert stub.ServiceDiscovery(pb_v3.ServiceDiscoveryRequest()).urls == ["unix:///run/tgi-0"]
    assert stub.Health(pb_v3.HealthRequest()) == pb_v3.HealthResponse()


def test_a_follower_whose_worker_died_is_unhealthy(follower):
    stub, worker = follower
    worker.alive = False
    with pytest.raises(grpc.RpcError) as caught:
        stub.Health(pb_v3.HealthRequest())
    assert caught.value.code() == grpc.StatusCode.INTERNAL


@pytest.mark.parametrize("call", ["ClearCache", "FilterBatch", "Warmup", "Prefill", "Decode"])
def test_followers_send_other_calls_to_rank_0(follower, call):
    stub, _ = follower
    with pytest.raises(grpc.RpcError) as caught:
        getattr(stub, call)(getattr(pb_v3, f"{call}Request")())
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "unix:///run/tgi-0" in caught.value.details()


def test_a_stopped_server_leaves_no_threads(tmp_path):
    before = set(threading.enumerate())
    server = follower_server(tmp_path / "tgi-0", Worker())
    server.start()
    server.stop(grace_s=0)
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("rpc")]
