"""A shard process over a scripted engine: `scripted_shard.py SOCKET [how the start goes]`."""

import sys
import time
from pathlib import Path

from mocks.scripted_engine import ScriptedEngine
from text_generation_server.engine.loop import EngineLoop
from text_generation_server.engine.types import PrefillCommand, ShardInfo, StepResult
from text_generation_server.errors import ModelError, StartError
from text_generation_server.lifetime import FAILED, Lifetime, leave
from text_generation_server.rpc.prompts import PromptEncoder
from text_generation_server.rpc.server import ShardServer
from text_generation_server.rpc.service import EngineService, Shard
from text_generation_server.rpc.sockets import reserve, socket_url
from text_generation_server.rpc.wire_v2 import WireV2
from text_generation_server.rpc.wire_v3 import WireV3


class Bytes:
    """A tokenizer whose ids are bytes."""

    def encode_all(self, texts, add_special_tokens):
        return [list(text.encode()) for text, _ in texts]


class ObedientEngine(ScriptedEngine):
    """Does what the first byte of a prompt says: `L`ose the device, or step for a `M`inute."""

    def prefill(self, command: PrefillCommand) -> StepResult:
        match chr(command.requests[0].prompt_ids[0]):
            case "L":
                raise ModelError("device lost")
            case "M":
                print("stepping", flush=True)
                time.sleep(60)
        return super().prefill(command)


def make_server(path: Path, start: str, lifetime: Lifetime) -> ShardServer:
    print("starting", flush=True)
    lifetime.keeps.enter_context(reserve(path))
    match start:
        case "slow":
            print("loading", flush=True)
            time.sleep(60)
        case "impossible":
            raise StartError("there is no such model")
        case "broken":
            raise ValueError("a bug")
    loop = EngineLoop(ObedientEngine())
    loop.start()
    shard = Shard(ShardInfo("torch.float32", "cpu", "paged", 16, False, True), (socket_url(path),))
    v2, v3 = (EngineService(wire, shard, loop, PromptEncoder(Bytes())) for wire in (WireV2(), WireV3(False)))
    return ShardServer(path, v2, v3, on_fatal=lambda: lifetime.end(FAILED))


if __name__ == "__main__":
    lifetime = Lifetime()
    leave(lifetime.run(lambda: make_server(Path(sys.argv[1]), sys.argv[2], lifetime)))
