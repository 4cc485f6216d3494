"""Sizes the cache: runs the largest prefill once, measures what is left, and says which limits fit."""

import time
from dataclasses import replace
from typing import Protocol

from loguru import logger

from text_generation_server.engine.plan import Fitting, MeasureMemory
from text_generation_server.engine.settings import EngineSettings
from text_generation_server.engine.step_launcher import StepRunner
from text_generation_server.engine.types import PrefillCommand, Request, StepResult, WarmupCommand, WarmupResult
from text_generation_server.errors import InvalidRequest, NotEnoughMemory
from text_generation_server.log import Progress

LONGEST_UNSAID = 1 << 15
"""Tokens of a sequence where neither a model nor an operator says: every row has a place for each in a table."""

LIVENESS_ROWS = 1
"""Beside those of requests: liveness prefills have one of their own."""

PROBE_NEW_TOKENS = 2
"""One prefill and one decode: both shapes of step are measured."""


class Probed(Protocol):
    """The engine as warm-up sees it."""

    def resize(self, num_slots: int, max_len: int, graphs: tuple[int, ...], max_rows: int) -> None: ...

    def prefill(self, command: PrefillCommand) -> StepResult: ...

    def decode(self, batch_ids: list[int]) -> StepResult: ...

    def clear(self, batch_id: int | None) -> None: ...


class CacheSizer:
    """Decides how many rows and slots there are and how long a sequence may get.

    Rows are `max_rows`, or what memory allows of them where not `all_rows` are asked for.
    """

    default_prefill_tokens = 4096

    def __init__(self, runner: StepRunner, settings: EngineSettings) -> None:
        self._runner = runner
        self._settings = settings

    def measure(self, engine: Probed, command: WarmupCommand) -> WarmupResult:
        """Run the warm-up batch on a cache just big enough, then size the real one (docs/protocol.md#warming-up).

        Raises:
            NotEnoughMemory: the limits asked for do not fit.
            InvalidRequest: they exceed what the model can address.
        """
        self._check_positions(command)
        requests = tuple(self._probe(request, command) for request in command.requests[: self._settings.max_rows])
        began = time.monotonic()
        if requests:
            longest = max(len(r.prompt_ids) for r in requests) + PROBE_NEW_TOKENS
            blocks = sum(-(-(len(r.prompt_ids) + PROBE_NEW_TOKENS) // self._settings.block_size) for r in requests)
            engine.resize(blocks * self._settings.block_size, longest, (), len(requests))
            progress = Progress("probe", "Trying the largest steps: {:.0f} of {:.0f}")
            engine.prefill(PrefillCommand(batch_id=0, requests=requests))
            progress(1, 2)
            engine.decode([0])
            progress(2, 2)
            engine.clear(None)
            seconds = time.monotonic() - began
            logger.bind(phase="probed", seconds=seconds).info(
                "Tried {} prompts of {} tokens in {:.1f} s", len(requests), longest - PROBE_NEW_TOKENS, seconds
            )
        return self._limits(self._fitting(), command)

    def unmeasured(self) -> WarmupResult:
        """Limits for a caller that never warms up: what is free now, with nothing known of a step's own needs."""
        return self._limits(self._fitting(), WarmupCommand((), max_prefill_tokens=1))

    def _fitting(self) -> Fitting:
        asked = self._settings
        command = MeasureMemory(asked.memory_fraction, asked.max_rows + LIVENESS_ROWS, asked.graphs, asked.all_rows)
        return self._runner.fitting(command).result()

    def _limits(self, fitting: Fitting, command: WarmupCommand) -> WarmupResult:
        block, rows = self._settings.block_size, fitting.num_rows - LIVENESS_ROWS
        slots = fitting.num_slots // block * block
        wanted = max(command.max_prefill_tokens, command.max_total_tokens or 2)
        if rows < 1 or slots < wanted:
            raise NotEnoughMemory(self._missing(slots, max(rows, 0), wanted))
        longest = self._settings.position_limit or self._settings.usual_length or LONGEST_UNSAID
        max_total = command.max_total_tokens or min(slots, longest)
        return WarmupResult(slots, command.max_input_tokens or max_total - 1, max_total, rows)

    def _missing(self, slots: int, rows: int, wanted: int) -> str:
        """What does not fit."""
        row, slot = self._runner.bytes_per_row, self._runner.bytes_per_slot
        beside = f" beside {rows} rows of {row / 2**20:.1f} MiB" if row else ""
        lower = "MAX_BATCH_SIZE, " if row and self._settings.all_rows else ""
        return (
            f"not enough memory: the cache fits {slots} tokens ({slots * slot / 2**30:.2f} GiB){beside}, {wanted} are "
            f"needed; lower {lower}--max-batch-prefill-tokens and --max-total-tokens to at most what fits, or free "
            "memory"
        )

    def _check_positions(self, command: WarmupCommand) -> None:
        limit = self._settings.position_limit
        if limit and command.max_total_tokens and command.max_total_tokens > limit:
            raise InvalidRequest(
                f"--max-total-tokens {command.max_total_tokens} is more than the {limit} positions of the model; "
                f"ask for at most {limit}"
            )

    def _probe(self, request: Request, command: WarmupCommand) -> Request:
        """A warm-up request without what cannot be measured: lengths may be absurd (docs/protocol.md#warming-up)."""
        limit = min(
            self._settings.position_limit or command.max_prefill_tokens + PROBE_NEW_TOKENS,
            len(request.prompt_ids) + PROBE_NEW_TOKENS,
        )
        kept = limit - PROBE_NEW_TOKENS
        return replace(
            request,
            prompt_ids=request.prompt_ids[-kept:],
            images=request.images if len(request.prompt_ids) <= kept else (),
            sampling=replace(request.sampling, grammar=""),
            stopping=replace(request.stopping, max_new_tokens=PROBE_NEW_TOKENS, ignore_eos=True, stop_sequences=()),
            slots=None,
            cache_len=0,
            chunk=None,
        )
