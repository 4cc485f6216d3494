"""An engine that remembers what it was asked and answers by rote: one token a request and step, as its limits allow."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from text_generation_server.engine.types import (
    BatchView,
    FinishReason,
    GeneratedText,
    Generation,
    PrefillCommand,
    Request,
    StepResult,
    TokenList,
    WarmupCommand,
    WarmupResult,
)
from text_generation_server.errors import UnknownBatch


@dataclass
class Entry:
    """A request and how many tokens it has been given."""

    request: Request
    generated: int = 0


class ScriptedEngine:
    """Satisfies `rpc.service.ServingEngine`.

    error: raised by the next call. result: what steps answer instead of their own. Calls wait while `gate` is not set;
    `entered` is set when one has begun.
    """

    def __init__(self) -> None:
        self.commands: list[object] = []
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.result: StepResult | None = None
        self._batches: dict[int, list[Entry]] = {}

    @property
    def last(self) -> object:
        """The newest command."""
        return self.commands[-1]

    @property
    def prompts(self) -> list[tuple[int, ...]]:
        """Prompt ids of the newest command's requests."""
        return [request.prompt_ids for request in self.last.requests]

    def warmup(self, command: WarmupCommand) -> WarmupResult:
        self._begin(command)
        total = command.max_total_tokens or 8192
        return WarmupResult(65536, command.max_input_tokens or total - 1, total, 8)

    def prefill(self, command: PrefillCommand) -> StepResult:
        self._begin(command)
        joined = [] if command.cached_batch_id is None else self._pop(command.cached_batch_id)
        batch_id = command.batch_id if command.cached_batch_id is None else command.cached_batch_id
        return self._step(batch_id, joined + [Entry(request) for request in command.requests], merged=bool(joined))

    def decode(self, batch_ids: Sequence[int]) -> StepResult:
        self._begin(("decode", tuple(batch_ids)))
        entries = [entry for batch_id in batch_ids for entry in self._pop(batch_id)]
        return self._step(batch_ids[0], entries, merged=len(batch_ids) > 1)

    def filter(self, batch_id: int, keep: Sequence[int]) -> BatchView:
        self._begin(("filter", batch_id, tuple(keep)))
        entries = {entry.request.id: entry for entry in self._pop(batch_id)}
        self._batches[batch_id] = [entries[request_id] for request_id in keep]
        return self._view(batch_id)

    def clear(self, batch_id: int | None) -> None:
        self._begin(("clear", batch_id))
        for known in [batch_id] if batch_id is not None else list(self._batches):
            self._batches.pop(known, None)

    def _begin(self, command: object) -> None:
        self.commands.append(command)
        self.entered.set()
        self.gate.wait()
        error, self.error = self.error, None
        if error is not None:
            raise error

    def _pop(self, batch_id: int) -> list[Entry]:
        if batch_id not in self._batches:
            raise UnknownBatch(f"batch {batch_id} is not cached")
        return self._batches.pop(batch_id)

    def _step(self, batch_id: int, entries: list[Entry], merged: bool) -> StepResult:
        generations = tuple(self._generate(entry) for entry in entries)
        going_on = [e for e, generation in zip(entries, generations, strict=True) if generation.finished is None]
        if going_on:
            self._batches[batch_id] = going_on
        return self.result or StepResult(
            generations=generations,
            batch=self._view(batch_id) if going_on else None,
            forward_ns=1000,
            decode_ns=100,
            concat_ns=10 if merged else None,
        )

    def _generate(self, entry: Entry) -> Generation:
        entry.generated += 1
        text = GeneratedText("a" * entry.generated, entry.generated, FinishReason.LENGTH, None)
        done = entry.generated >= entry.request.stopping.max_new_tokens
        return Generation(entry.request.id, TokenList([97], [-0.5], ["a"], [False]), finished=text if done else None)

    def _view(self, batch_id: int) -> BatchView:
        ids = tuple(entry.request.id for entry in self._batches[batch_id])
        return BatchView(batch_id, ids, max_tokens=16 * len(ids), current_tokens=len(ids), prefill_room=8)
