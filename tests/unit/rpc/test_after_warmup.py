"""What follows a warm-up: done before a router is told that it may send requests."""

from concurrent.futures import Future

from text_generation_protocol.v3 import generate_pb2 as pb
from text_generation_server.engine.types import ShardInfo, WarmupResult
from text_generation_server.rpc.prompts import PromptEncoder
from text_generation_server.rpc.service import EngineService, Shard
from text_generation_server.rpc.wire_v3 import WireV3


class Calls:
    """An engine in a loop of its own, and what was done with it."""

    alive = True

    def __init__(self):
        self.made = []

    def submit(self, call):
        done = Future()
        done.set_result(call(self))
        return done

    def warmup(self, command):
        self.made.append("warm-up")
        return WarmupResult(supported_tokens=100, max_input_tokens=50, max_total_tokens=60, max_rows=4)

    def clear(self, batch_id):
        self.made.append("clear")

    def follow_up(self):
        self.made.append("follow-up")


def test_it_comes_after_each_warm_up_and_after_nothing_else():
    calls = Calls()
    info = ShardInfo("torch.float32", "cpu", "paged", 16, prefix_caching=False, chunking=True)
    encode = PromptEncoder(tokenizer=None)
    service = EngineService(WireV3(False), Shard(info, ("unix:///s",)), calls, encode, calls.follow_up)
    service.ClearCache(pb.ClearCacheRequest(), None)
    service.Warmup(pb.WarmupRequest(batch=pb.Batch(), max_prefill_tokens=10), None)
    assert calls.made == ["clear", "warm-up", "follow-up"]
