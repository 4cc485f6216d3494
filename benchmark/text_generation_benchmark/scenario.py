"""One run: a batch from its first Prefill to its last token, on the clock. Knows no statistics."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from text_generation_benchmark.client import Answer, ShardClient
from text_generation_benchmark.errors import BenchmarkError
from text_generation_benchmark.messages import PrefillRequest


@dataclass(frozen=True, slots=True)
class Run:
    """A run in seconds without gaps: until all prompts are computed, then from each answer to the next.

    What the client does between two calls counts too: a sum of its parts is what a stopwatch would show.
    decode_tokens: of all requests, after the prefill's.
    """

    prefill_s: float
    decode_s: tuple[float, ...]
    decode_tokens: int

    @property
    def total_s(self) -> float:
        """From the first Prefill to the last token."""
        return self.prefill_s + sum(self.decode_s)


def run_once(client: ShardClient, prefills: Sequence[PrefillRequest], decode_length: int) -> Run:
    """Generate `decode_length` tokens for each request of these Prefills, whose batches the first Decode joins.

    Between two calls it only looks whether a request has ended; what the answers say is checked afterwards.
    BenchmarkError if a request gets less than it asked for, or more.
    """
    stamps = [time.perf_counter()]
    prefilled = [client.prefill(request) for request in prefills]
    stamps.append(time.perf_counter())
    batches = [batch for answer in prefilled for batch in client.unfinished(answer)]
    decoded: list[Answer] = []
    while batches:
        answer = client.decode(batches)
        stamps.append(time.perf_counter())
        decoded.append(answer)
        batches = client.unfinished(answer)
    asked = {wire.id for request in prefills for wire in request.batch.requests}
    _check_prompts(asked, prefilled)
    _check_endings(asked, [*prefilled, *decoded], decode_length)
    prefill_s, *decode_s = (after - before for before, after in pairwise(stamps))
    return Run(prefill_s, tuple(decode_s), sum(answer.tokens() for answer in decoded))


def _check_prompts(asked: set[int], prefilled: Sequence[Answer]) -> None:
    computed = {request_id for answer in prefilled for request_id in answer.advanced()}
    if computed != asked:
        raise BenchmarkError(
            f"{len(computed)} of {len(asked)} prompts were computed by their Prefill, expected all; "
            "start the server with more prefill tokens, or send fewer with --max-batch-prefill-tokens"
        )


def _check_endings(asked: set[int], answers: Sequence[Answer], decode_length: int) -> None:
    endings = {request_id: ending for answer in answers for request_id, ending in answer.endings().items()}
    for request_id, ending in endings.items():
        if ending.failed:
            raise BenchmarkError(f"request {request_id} failed: {ending.text}")
        if ending.tokens != decode_length:
            raise BenchmarkError(
                f"request {request_id} ended after {ending.tokens} of {decode_length} tokens, with {ending.text!r}"
            )
    if lost := asked - endings.keys():
        raise BenchmarkError(f"the server dropped its batch with {len(lost)} of {len(asked)} requests unfinished")
