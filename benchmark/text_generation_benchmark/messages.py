"""What a workload becomes on the wire (generate.v3), numbered and placed as by a router that has just started.

Knows neither sockets nor clocks.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from text_generation_benchmark.client import ShardInfo
from text_generation_benchmark.errors import BenchmarkError
from text_generation_benchmark.settings import Sampling, Workload
from text_generation_protocol.v3 import generate_pb2 as pb

PrefillRequest = pb.PrefillRequest

_WARMUP_SAMPLING = Sampling(
    temperature=0.9,
    top_k=10,
    top_p=0.9,
    typical_p=0.9,
    repetition_penalty=1.2,
    frequency_penalty=0.1,
    watermark=True,
)
_WARMUP_TOP_N_TOKENS = 20


class Batches:
    """Makes batches of requests that are alike but for their prompts, which are taken in turn.

    Ids never come twice; every batch is placed as if the cache were empty.
    """

    def __init__(self, workload: Workload, prompts: Sequence[str], shard: ShardInfo) -> None:
        self._workload = workload
        self._prompts = prompts
        self._shard = shard
        self._ids = itertools.count()
        self._positions = workload.sequence_length + workload.decode_length - 1 + shard.speculate
        held = min(self._positions, shard.window_size or self._positions)
        self._blocks = -(-held // shard.block_size) if shard.allocates else 0

    def needed_tokens(self, batch_size: int) -> int:
        """Slots that a cache must have for a batch: whole blocks, and block 0, which routers leave alone."""
        if not self._shard.allocates:
            return batch_size * self._positions
        return (1 + batch_size * self._blocks) * self._shard.block_size

    def prefills(self, batch_size: int) -> list[pb.PrefillRequest]:
        """`batch_size` requests, in as few Prefills as the workload allows. Raises BenchmarkError."""
        at_once = batch_size
        if self._workload.max_batch_prefill_tokens is not None:
            at_once = min(batch_size, self._workload.max_batch_prefill_tokens // self._workload.sequence_length)
        if at_once < batch_size and not self._shard.allocates:
            raise BenchmarkError(
                f"{batch_size} prompts do not fit into one Prefill, and this shard places only one by itself; "
                "raise --max-batch-prefill-tokens, or measure smaller batches"
            )
        places = range(batch_size)
        return [self._prefill(places[start : start + at_once]) for start in range(0, batch_size, at_once)]

    def _prefill(self, places: range) -> pb.PrefillRequest:
        requests = [self._placed(place) for place in places]
        batch = pb.Batch(
            id=requests[0].id,
            requests=requests,
            size=len(requests),
            max_tokens=len(requests) * self._workload.sequence_length,
            max_blocks=self._blocks,
        )
        return pb.PrefillRequest(batch=batch)

    def _placed(self, place: int) -> pb.Request:
        size = self._shard.block_size
        blocks = range(1 + place * self._blocks, 1 + (place + 1) * self._blocks)
        slots = itertools.cycle(range(blocks.start * size, blocks.stop * size))  # beyond a window, from its beginning
        return _request(
            self._prompts[place % len(self._prompts)],
            self._workload.sequence_length,
            self._workload.decode_length,
            self._workload.sampling,
            id=next(self._ids),
            top_n_tokens=self._workload.top_n_tokens,
            blocks=blocks,
            slots=itertools.islice(slots, self._positions),
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """What a router allows, in tokens: a forward pass, a prompt, and prompt and answer together."""

    max_prefill_tokens: int
    max_input_tokens: int
    max_total_tokens: int


def warmup_request(limits: Limits) -> pb.WarmupRequest:
    """What a router sends at its start: as many tokens as a forward pass may have, and every kind of sampling on."""
    requests = []
    for start in range(0, limits.max_prefill_tokens, limits.max_input_tokens):
        length = min(limits.max_input_tokens, limits.max_prefill_tokens - start)
        requests.append(
            _request(
                "_test " * length,
                length,
                limits.max_total_tokens - length,
                _WARMUP_SAMPLING,
                prefill_logprobs=True,
                top_n_tokens=_WARMUP_TOP_N_TOKENS,
            )
        )
    return pb.WarmupRequest(
        batch=pb.Batch(requests=requests, size=len(requests), max_tokens=limits.max_input_tokens),
        max_input_tokens=limits.max_input_tokens,
        max_prefill_tokens=limits.max_prefill_tokens,
        max_total_tokens=limits.max_total_tokens,
    )


def _request(prompt: str, length: int, new_tokens: int, sampling: Sampling, **fields: Any) -> pb.Request:
    return pb.Request(
        inputs=prompt,
        input_chunks=pb.Input(chunks=[pb.InputChunk(text=prompt)]),
        truncate=length,
        add_special_tokens=True,
        parameters=_parameters(sampling),
        stopping_parameters=pb.StoppingCriteriaParameters(max_new_tokens=new_tokens, ignore_eos_token=True),
        **fields,
    )


def _parameters(sampling: Sampling) -> pb.NextTokenChooserParameters:
    return pb.NextTokenChooserParameters(
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        typical_p=sampling.typical_p,
        do_sample=sampling.do_sample,
        repetition_penalty=sampling.repetition_penalty,
        frequency_penalty=sampling.frequency_penalty,
        watermark=sampling.watermark,
    )
