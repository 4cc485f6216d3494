"""The call of kvrun.v1.Steps: decodes that a router needs not ask for one by one. Knows no engine."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from time import perf_counter_ns

import grpc

from text_generation_protocol.kvrun_v1 import steps_pb2 as pb
from text_generation_server.engine.types import Generation, StepResult
from text_generation_server.rpc.service import Context, EngineCalls
from text_generation_server.rpc.wire import generation_fields
from text_generation_server.rpc.wire_v3 import cached_batch


class StepsService:
    """The call, on rank 0. What it decodes are the batches that both protocol versions know."""

    def __init__(self, loop: EngineCalls) -> None:
        self._loop = loop

    def Decode(self, requests: Iterator[pb.StepsRequest], context: Context) -> Iterator[pb.Step]:
        """Steps until the batch has ended, or the caller has no more to send."""
        began = perf_counter_ns()
        first = next(requests, pb.StepsRequest())
        allowance = _Allowance(first.steps)
        threading.Thread(target=allowance.follow, args=(requests,), name="steps", daemon=True).start()
        allowance.take()
        batch_ids: Sequence[int] = first.batch_ids
        under_way = self._decode(batch_ids)
        while True:
            result = under_way.result()
            now = perf_counter_ns()
            last = result.batch is None or allowance.ended.is_set()
            batch_ids = (result.batch.id,) if result.batch is not None else ()
            ahead = not last and allowance.take(wait=False)
            if ahead:
                under_way = self._decode(batch_ids)  # while this answer is on its way
            yield step_message(result, now - began, last)
            if last:
                break
            began = now
            if not ahead:
                allowance.take()
                under_way = self._decode(batch_ids)
        allowance.ended.wait()  # what a caller says to an ended call fails, and takes what it has not read with it

    def _decode(self, batch_ids: Sequence[int]) -> Future[StepResult]:
        ids = list(batch_ids)
        return self._loop.submit(lambda engine: engine.decode(ids))


class _Allowance:
    """How many steps the caller still wants. ended: it wants no more than the one under way."""

    def __init__(self, steps: int) -> None:
        self.ended = threading.Event()
        self._steps = threading.Semaphore(steps)

    def take(self, wait: bool = True) -> bool:
        """Whether one more may be made; if not, it may be waited for."""
        return self._steps.acquire(wait)

    def follow(self, requests: Iterator[pb.StepsRequest]) -> None:
        """Add what the caller adds, until its end."""
        with suppress(grpc.RpcError):  # it is gone
            for request in requests:
                if request.steps:
                    self._steps.release(request.steps)
        self.ended.set()
        self._steps.release()


def step_message(result: StepResult, total_ns: int, last: bool) -> pb.Step:
    """Step; in its lists whoever fits there."""
    plain, others = list[Generation](), list[Generation]()
    for generation in result.generations:
        (plain if _is_plain(generation) else others).append(generation)
    return pb.Step(
        request_ids=[one.request_id for one in plain],
        ids=[one.tokens.ids[0] for one in plain],
        logprobs=[one.tokens.logprobs[0] for one in plain],
        texts=[one.tokens.texts[0] for one in plain],
        special=[place for place, one in enumerate(plain) if one.tokens.is_special[0]],
        generations=[generation_fields(one) for one in others],
        batch=None if result.batch is None else cached_batch(result.batch),
        forward_ns=result.forward_ns,
        decode_ns=result.decode_ns,
        total_ns=max(total_ns, result.forward_ns + result.decode_ns + (result.concat_ns or 0)),
        concat_ns=result.concat_ns,
        last=last,
    )


def _is_plain(generation: Generation) -> bool:
    more = generation.finished or generation.top_tokens or generation.prefill_tokens
    return len(generation.tokens.ids) == 1 and not more
