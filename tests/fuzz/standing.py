"""What must hold of a server after any input: it answers, it answers rightly, and it holds nothing at idle."""

import math
from functools import lru_cache
from typing import Any

import grpc

from conformance.caller import Caller, Message, ids_of
from conformance.conftest import RunningShard
from conformance.made_tokenizers import BOS
from mocks.mock_model import LogitsOf, greedy_continuation, next_logits

METHODS = {
    "Info": 1,
    "ServiceDiscovery": 1,
    "ClearCache": 1,
    "FilterBatch": 3,
    "Warmup": 1,
    "Prefill": 12,
    "Decode": 4,
    "Health": 1,
}
"""All calls, and how often each is made."""

DEADLINE_S = 30
REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
"""How calls that bring absurd values may end: all else would be an error that nobody expected."""
UNREADABLE = "Exception deserializing request!"


@lru_cache(100_000)
def continuation(version: str, text: str, new: int, logits_of: LogitsOf = next_logits) -> list[int]:
    """The greedy answer to a text without special tokens; version 2 always puts BOS before it."""
    return greedy_continuation([BOS] * (version == "v2") + [*text.encode()], new, True, logits_of)


def send(caller: Caller, method: str, content: bytes) -> bytes | None:
    """The answer to any bytes; None if they were refused, cleanly."""
    path = f"/generate.{caller.version}.TextGenerationService/{method}"
    try:
        answer: bytes = caller.channel.unary_unary(path)(content, timeout=DEADLINE_S)
    except grpc.RpcError as error:
        assert error.details()
        assert error.code() in REFUSALS or error.details() == UNREADABLE, error
        return None
    return answer


def call(caller: Caller, method: str, values: dict[str, Any]) -> Message | None:
    """The answer to a message with these values; None if it was refused, cleanly."""
    message = getattr(caller.pb, f"{method}Request")(**values)
    answer = send(caller, method, message.SerializeToString())
    return None if answer is None else checked(getattr(caller.pb, f"{method}Response").FromString(answer))


def checked(answer: Message) -> Message:
    """An answer whose generations are well-formed."""
    for generation in getattr(answer, "generations", ()):
        tokens = generation.tokens
        assert len(tokens.ids) == len(tokens.logprobs) == len(tokens.texts) == len(tokens.is_special) > 0
        assert not any(map(math.isnan, tokens.logprobs)), tokens
        for top in generation.top_tokens:
            assert len(top.ids) == len(top.logprobs) == len(top.texts)
    return answer


def assert_standing(shard: RunningShard, warmed: bool = False) -> None:
    """After ClearCache nothing is held, and both versions are answered exactly.

    `warmed`: limits may be any after a Warmup, so the router that comes next warms up too.
    """
    shard.v3.clear()
    assert_nothing_held(shard)
    if warmed:
        shard.v3.warmup(shard.v3.request(0, "warm up", add_special_tokens=True))
    for caller in (shard.v2, shard.v3):
        assert ids_of(caller.answer(caller.request(1, "hello", 3))) == continuation(caller.version, "hello", 3)
    assert_nothing_held(shard)


def assert_nothing_held(shard: RunningShard) -> None:
    """No batch, row, block or row of token counts is held."""
    shard.assert_idle()
    counts = shard.engine.runner.counts
    assert counts._lent == 0 and len(counts._free) == len(set(counts._free))
    rows = shard.engine.pool.rows._free
    assert len(rows) == len(set(rows))
    blocks = shard.engine.pool.blocks._free
    assert len(blocks) == len(set(blocks))
    assert not shard.fatal.is_set()
