"""What a workload becomes on the wire (generate.v3), numbered and placed as by a router that has just started.

Knows neither sockets nor clocks.
"""

import itertools
from collections.abc import Sequence
from dataclasses import asdict

from text_generation_benchmark.client import ShardInfo
from text_generation_benchmark.errors import BenchmarkError
from text_generation_benchmark.settings import Workload
from text_generation_protocol import calls
from text_generation_protocol.v3 import generate_pb2 as pb

PrefillRequest = pb.PrefillRequest


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
        batch = calls.batch(requests[0].id, requests, max_tokens=len(requests) * self._positions)
        return pb.PrefillRequest(batch=batch)

    def _placed(self, place: int) -> pb.Request:
        size = self._shard.block_size
        blocks = range(1 + place * self._blocks, 1 + (place + 1) * self._blocks)
        slots = itertools.cycle(range(blocks.start * size, blocks.stop * size))  # beyond a window, from its beginning
        return calls.request(
            self._prompts[place % len(self._prompts)],
            self._workload.sequence_length,
            self._workload.decode_length,
            calls.parameters(**asdict(self._workload.sampling)),
            ignore_eos=True,
            id=next(self._ids),
            top_n_tokens=self._workload.top_n_tokens,
            blocks=blocks,
            slots=itertools.islice(slots, self._positions),
        )
