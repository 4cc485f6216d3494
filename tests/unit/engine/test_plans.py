"""The channel from rank 0 to the other ranks."""

import stat
import threading
from pathlib import Path

import pytest

from text_generation_server.distributed.plans import PlanReceiver, PlanSender, plan_socket
from text_generation_server.engine.plan import AllocateCache, MeasureMemory, StepPlan
from text_generation_server.errors import ModelError

STEP = StepPlan(rows=(0,), query_lens=(1,), seq_lens=(4,), prompts=(None,), admissions=(), chooses=(0,), drafted=(0,))


def connected(path: str, followers: int) -> tuple[PlanSender, list[PlanReceiver]]:
    receivers: list[PlanReceiver] = []
    threads = [threading.Thread(target=lambda: receivers.append(PlanReceiver(path))) for _ in range(followers)]
    for thread in threads:
        thread.start()
    sender = PlanSender(path, followers)
    for thread in threads:
        thread.join(10)
    return sender, receivers


def test_every_follower_gets_every_command_in_order(tmp_path):
    sender, receivers = connected(plan_socket(str(tmp_path / "shard")), 2)
    commands = [AllocateCache(8, 2, 8), MeasureMemory(0.5, 3), STEP]
    for command in commands:
        sender.send(command)
    sender.close()
    for receiver in receivers:
        assert [receiver.receive() for _ in commands] == commands
        assert receiver.receive() is None


def test_the_socket_is_private_and_goes_once_all_have_connected(tmp_path):
    path = Path(plan_socket(str(tmp_path / "shard")))
    modes = []

    def follow() -> None:
        while not path.exists():
            pass
        modes.append(stat.S_IMODE(path.stat().st_mode))
        PlanReceiver(str(path))

    thread = threading.Thread(target=follow)
    thread.start()
    PlanSender(str(path), 1).close()
    thread.join(10)
    assert modes == [0o600] and not path.exists()


def test_a_lost_follower_is_fatal(tmp_path):
    sender, (receiver,) = connected(plan_socket(str(tmp_path / "shard")), 1)
    receiver.close()
    with pytest.raises(ModelError, match="follower"):
        for _ in range(100):
            sender.send(STEP)
    sender.close()


def test_a_stale_socket_file_is_replaced(tmp_path):
    path = plan_socket(str(tmp_path / "shard"))
    Path(path).touch()
    sender, (receiver,) = connected(path, 1)
    sender.send(STEP)
    assert receiver.receive() == STEP
    sender.close()
    receiver.close()
