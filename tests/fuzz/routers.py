"""A router that keeps books of what it started, and checks every answer against them, whatever else goes on."""

from dataclasses import dataclass
from itertools import count, takewhile
from typing import Any

import grpc

from conformance.caller import Caller, Message
from conformance.conftest import RunningShard
from fuzz.faulty_model import FaultyModel
from fuzz.standing import DEADLINE_S, call, checked, continuation
from mocks.mock_model import LogitsOf

SHARED_PROMPTS = 3
TEXTS = ["a", "one two", "one two three four", "one two three six", "one two three four five", "seven"]


@dataclass(frozen=True, slots=True)
class Start:
    """How to start a request: by number of its text, tokens wanted, prompt tokens in its first step.

    `shared`: take the slots of an earlier prompt that begins alike, and say that they are filled.
    """

    text: int
    new: int
    chunk: int
    own_slots: bool
    shared: bool


class Router:
    """Speaks both versions at once. Ids never come again."""

    def __init__(self, shard: RunningShard, model: FaultyModel, logits_of: LogitsOf, slots: tuple[int, ...]) -> None:
        """`slots` of the cache are this router's."""
        self.shard = shard
        self.model = model
        self.logits_of = logits_of
        self.ids = count(100)
        self.batches: dict[int, list[int]] = {}
        self.rest: dict[int, list[int]] = {}
        self.slots_of: dict[int, list[int]] = {}
        self.free = list(slots)
        self.prompts: list[tuple[str, list[int]]] = []
        self.failures = self.tokens = 0

    def prefill(self, version: str, starts: list[Start], joined: int | None, absurd: list[dict[str, Any]]) -> None:
        """Start requests of ours with absurd ones among them, joined to a batch if there is one."""
        caller = self.shard.caller(version)
        requests = [self._request(caller, start) for start in starts]
        strangers = [caller.pb.Request(**values | {"id": next(self.ids)}) for values in absurd]
        batch_id, cached = next(self.ids), self._choose(joined) if version == "v3" else None
        members = (self.batches.pop(cached) if cached is not None else []) + [r.id for r in [*strangers, *requests]]
        batch = {"batch": {"id": batch_id, "requests": [*strangers, *requests]}}
        self._step(caller, "Prefill", batch | ({} if cached is None else {"cached_batch": {"id": cached}}), members)

    def decode(self, version: str, chosen: list[int]) -> None:
        """A step of some batches."""
        ids = list(dict.fromkeys(batch for number in chosen if (batch := self._choose(number)) is not None))
        if ids:
            members = [member for batch in ids for member in self.batches.pop(batch)]
            self._step(self.shard.caller(version), "Decode", {"batches": [{"id": i} for i in ids]}, members)

    def filter(self, version: str, number: int, keep: int) -> None:
        """Keep some requests of a batch, the last of them first."""
        batch_id = self._choose(number)
        if batch_id is not None:
            members = self.batches[batch_id]
            kept = members[keep % len(members) :][::-1]
            assert list(self.shard.caller(version).filter(batch_id, kept).request_ids) == kept
            self._lose([member for member in members if member not in kept])
            self.batches[batch_id] = kept

    def clear(self, version: str, number: int) -> None:
        """Drop a batch."""
        batch_id = self._choose(number)
        if batch_id is not None:
            self.shard.caller(version).clear(batch_id)
            self._lose(self.batches.pop(batch_id))

    def break_device(self, steps: int, fault: int) -> None:
        """Let the device fail soon."""
        self.model.fail_after(steps, fault)

    def stray(self, version: str, method: str, values: dict[str, Any]) -> None:
        """A call that names no batch of ours."""
        call(self.shard.caller(version), method, values)

    def check_health(self, version: str) -> None:
        """The router's liveness prefill, whatever is running."""
        caller = self.shard.caller(version)
        try:
            (generation,) = caller.liveness().generations
        except grpc.RpcError as error:
            self._failed(error, "Prefill", [])
        else:
            assert list(generation.tokens.ids) == continuation(version, "liveness", 1, self.logits_of)

    def finish(self) -> None:
        """Decode everything to its end on a healthy device."""
        self.model.fail_after(None)
        while self.batches:
            self.decode("v3", [0, 1, 2])

    def _request(self, caller: Caller, start: Start) -> Message:
        request_id, text = next(self.ids), TEXTS[start.text]
        self.rest[request_id] = continuation(caller.version, text, start.new, self.logits_of)
        if caller.version == "v2" or not start.own_slots:
            return caller.request(request_id, text, start.new)
        held = self._prefix(text) if start.shared else []
        needed = len(text) + start.new - 1 - len(held)
        if needed > len(self.free):
            return caller.request(request_id, text, start.new)
        taken, self.free = self.free[:needed], self.free[needed:]
        slots = held + taken
        if not held and len(self.prompts) < SHARED_PROMPTS:
            # These slots are never used for anything else.
            self.prompts.append((text, slots[: len(text)]))
            taken = taken[len(text) :]
        self.slots_of[request_id] = taken
        chunk = {"chunk_len": start.chunk} if start.chunk else {}
        return caller.request(request_id, text, start.new, slots=slots, cache_len=len(held), **chunk)

    def _prefix(self, text: str) -> list[int]:
        """The slots of the longest beginning that the text has in common with an earlier prompt, filled or not."""
        return max((slots[: _alike(text, earlier)] for earlier, slots in self.prompts), key=len, default=[])

    def _step(self, caller: Caller, method: str, values: dict[str, Any], members: list[int]) -> None:
        message = getattr(caller.pb, f"{method}Request")(**values)
        try:
            answer = checked(getattr(caller.stub, method)(message, timeout=DEADLINE_S))
        except grpc.RpcError as error:
            self._failed(error, method, members)
        else:
            self._take(answer, members)

    def _take(self, answer: Message, members: list[int]) -> None:
        finished = []
        lost = [generation.request_id for generation in answer.generations if _lacked_memory(generation)]
        self._count_failure(bool(lost))
        for generation in answer.generations:
            request_id, ids = generation.request_id, list(generation.tokens.ids)
            assert request_id in members
            if request_id in self.rest and request_id not in lost:
                assert ids == self.rest[request_id][: len(ids)]
                self.rest[request_id] = self.rest[request_id][len(ids) :]
                assert generation.HasField("generated_text") == (not self.rest[request_id])
                self.tokens += len(ids)
            if generation.HasField("generated_text"):
                finished.append(request_id)
        left = [member for member in members if member not in finished]
        assert list(answer.batch.request_ids) == left
        self._lose(finished)
        if left:
            self.batches[answer.batch.id] = left

    def _failed(self, error: grpc.RpcError, method: str, members: list[int]) -> None:
        """Calls may fail once for every fault of the device, for want of room, or if absurd requests were alone."""
        code = error.code()
        if code == grpc.StatusCode.INTERNAL:
            self._count_failure(True)
        elif code == grpc.StatusCode.INVALID_ARGUMENT:
            assert not any(member in self.rest for member in members), error
        else:
            assert (code, method) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "Prefill"), error
        self._lose(members)

    def _count_failure(self, failed: bool) -> None:
        self.failures += failed
        assert self.failures <= self.model.fired

    def _lose(self, members: list[int]) -> None:
        """These requests are over, and their slots are the next to be given out."""
        for member in members:
            self.free[:0] = self.slots_of.pop(member, [])

    def _choose(self, number: int | None) -> int | None:
        return None if number is None or not self.batches else sorted(self.batches)[number % len(self.batches)]


def _alike(text: str, other: str) -> int:
    """How many characters two texts begin with that are the same."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(text, other, strict=False)))


def _lacked_memory(generation: Message) -> bool:
    """Whether a request was ended by its prompt's step, in company that goes on."""
    return "not enough memory" in generation.generated_text.failure
