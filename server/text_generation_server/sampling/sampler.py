"""Chooses the next token of each row and says how likely it was. Everything stays on the device, in one stream.

The result for a row depends on its own logits, parameters, uniform and history only: other rows of the step cannot
change it. Knows nothing of requests, text or stop rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from text_generation_server.device.copies import to_device
from text_generation_server.sampling.counts import CountsRows, TokenCounts
from text_generation_server.sampling.methods import SamplingMethod, plan_method
from text_generation_server.sampling.params import SamplingParams, WatermarkParams
from text_generation_server.sampling.processors import PROCESSORS, LogitsProcessor, StepContext, Watermark
from text_generation_server.sampling.rows import PlannedRows, planned
from text_generation_server.sampling.sampled import HostSampled, Sampled

__all__ = ["CountsRows", "HostSampled", "Sampled", "Sampler", "SamplingPlan", "TokenCounts"]


@dataclass(frozen=True, slots=True)
class Counted:
    """Rows of a step whose tokens are counted, twice those that hold two rows of counts.

    rows: [C] int64. counts_rows: where in `TokenCounts` [C] int64, distinct.
    """

    rows: Tensor
    counts_rows: Tensor

    @classmethod
    def plan(cls, held: Sequence[CountsRows], device: torch.device) -> Self | None:
        """For rows that hold these rows of counts, None if there are none."""
        pairs = [(row, one) for row, rows in enumerate(held) for one in rows if one is not None]
        if not pairs:
            return None
        return cls(*(to_device(column, torch.int64, device) for column in zip(*pairs, strict=True)))


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """What a fixed list of rows asks of the sampler, already on the device; rebuilt only when the list changes.

    processors: those that some row needs, in order.
    choice: how tokens are chosen behind them.
    counted: the rows whose tokens are counted, None if none are.
    """

    processors: tuple[LogitsProcessor, ...]
    choice: SamplingMethod
    counted: Counted | None

    @classmethod
    def build(
        cls,
        params: Sequence[SamplingParams],
        top_n: Sequence[int],
        counts_rows: Sequence[CountsRows],
        vocab_size: int,
        device: torch.device,
        watermark: WatermarkParams | None = None,
    ) -> Self:
        """Plan for one row per entry: its parameters, its number of top tokens, and its rows of `TokenCounts`.

        Raises:
            ValueError: a row with a penalty has no row of counts.
        """
        rows = PlannedRows(params, counts_rows, vocab_size, device, watermark or WatermarkParams())
        return cls(
            processors=planned(PROCESSORS, rows),
            choice=plan_method(rows, top_n, kernels=device.type == "cuda"),
            counted=Counted.plan(counts_rows, device),
        )

    @property
    def watermarked(self) -> bool:
        """Whether the sampler needs to know each row's last token."""
        return any(isinstance(processor, Watermark) for processor in self.processors)


class Sampler:
    """Applies plans to logits. `counts` is shared with the host, which lends its rows to penalised sequences."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self.counts = TokenCounts(vocab_size, device)

    def __call__(
        self,
        logits: Tensor,
        plan: SamplingPlan,
        uniforms: Tensor,
        lengths: Tensor,
        generated: Tensor,
        previous: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> Sampled:
        """Choose one token a row, and count it where tokens are counted.

        Args:
            logits: raw scores [S, vocab], any float dtype; left unchanged.
            plan: built for these rows, in this order.
            uniforms: numbers in [0, 1) [S] fp32; greedy rows ignore theirs.
            lengths: prompt and generated tokens so far [S] int64.
            generated: generated tokens so far [S] int64.
            previous: the last of these tokens [S] int64; may be None if the plan is not `watermarked`.
            masks: see `StepContext`; may be None if no row has a grammar.
        """
        step = StepContext(lengths, generated, self.counts, previous, masks)
        sampled = plan.choice(self._processed(logits, plan, step), uniforms)
        if plan.counted is not None:
            self.counts.add(plan.counted.counts_rows, sampled.ids[plan.counted.rows])
        return sampled

    def _processed(self, logits: Tensor, plan: SamplingPlan, step: StepContext) -> Tensor:
        # What is written to in place must be a copy: prompt log-probabilities are still made from the raw logits.
        if plan.processors or plan.choice.overwrites:
            logits = logits.to(torch.float32, copy=True)
        for processor in plan.processors:
            logits = processor(logits, step)
        return logits
