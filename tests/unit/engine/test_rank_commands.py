"""What rank 0 has its device do, the others' devices do too, in the same order."""

from concurrent.futures import Future
from pathlib import Path
from threading import Thread

from text_generation_server.distributed.plans import PlanReceiver, PlanSender
from text_generation_server.engine.plan import AllocateCache, RankCommand
from text_generation_server.engine.ranks import LeadingRunner, follow


class Noted:
    """A runner that notes what it is asked; two sizes of step are left to record."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def allocate(self, command: AllocateCache) -> Future[None]:
        return self._noted(f"allocate {command.num_slots}", None)

    def record_more(self) -> Future[bool]:
        return self._noted("record", self.asked.count("record") < 1)

    def close(self) -> None:
        self.asked.append("close")

    def _noted(self, what: str, result: object) -> Future:
        self.asked.append(what)
        done: Future = Future()
        done.set_result(result)
        return done


def test_sizes_that_were_left_are_recorded_on_all_ranks(tmp_path: Path) -> None:
    path, own, other = str(tmp_path / "p"), Noted(), Noted()
    follower = Thread(target=lambda: follow(other, PlanReceiver[RankCommand](path)))
    follower.start()
    leader = LeadingRunner(own, PlanSender[RankCommand](path, 1))
    leader.allocate(AllocateCache(7, 1, 1))
    assert [leader.record_more().result() for _ in range(2)] == [True, False]
    leader.close()
    follower.join(5)
    assert own.asked == other.asked == ["allocate 7", "record", "record", "close"]
