"""Chooses the tokens of a step on rank 0: the sampler, with what only this rank knows. Knows no rows of the table."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import torch
from torch import Tensor

from text_generation_server.device.copies import to_device, upload
from text_generation_server.device.current import on_device
from text_generation_server.engine.scoring import NOTHING_SCORED, ScoredRows
from text_generation_server.grammar.masks import Masks
from text_generation_server.sampling.params import SamplingParams, WatermarkParams
from text_generation_server.sampling.sampler import CountsRows, Sampled, Sampler, SamplingPlan, TokenCounts


@dataclass(frozen=True, slots=True, eq=False)
class ChoosingRows:
    """What the rows of a step ask of the sampler; the same object as long as the rows stay the same.

    top_n: alternatives that each row wants to see. counts_rows: its rows of `TokenCounts`.
    """

    params: Sequence[SamplingParams]
    top_n: Sequence[int]
    counts_rows: Sequence[CountsRows]
    watermark: WatermarkParams


@dataclass(frozen=True, slots=True)
class SamplingInput:
    """What rank 0 alone knows about a step, for the rows that choose.

    uniforms: one random number in [0, 1) a row.
    lengths: prompt and generated tokens of a row so far; generated: the latter.
    histories: (counts row, its tokens) of rows whose penalties start with this step.
    masks: what the grammars of rows that have one allow; may be known only while the step runs.
    scored: what the rows want whose prompts are scored.
    """

    rows: ChoosingRows
    uniforms: list[float]
    lengths: list[int]
    generated: list[int]
    histories: tuple[tuple[int, tuple[int, ...]], ...] = ()
    masks: Future[Masks] | None = None
    scored: ScoredRows = NOTHING_SCORED


class Chooser:
    """Keeps the plan of the last step's rows: it is made again only when other rows choose."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self._vocab_size = vocab_size
        self._device = device
        self._sampler = Sampler(vocab_size, device)
        self._planned: tuple[ChoosingRows, SamplingPlan] | None = None

    @property
    def counts(self) -> TokenCounts:
        """The token counts of rows with penalties."""
        return self._sampler.counts

    def __call__(self, logits: Tensor, sampling: SamplingInput, newest: Callable[[], Tensor]) -> Sampled:
        """Choose by logits [S, vocab]; `newest` makes the tokens [S, …] that came before."""
        plan = self._plan(sampling.rows)
        for counts_row, tokens in sampling.histories:
            self._sampler.counts.reset(counts_row, tokens)
        lengths, generated = upload(self._device, sampling.lengths, sampling.generated)
        return self._sampler(
            logits,
            plan,
            to_device(sampling.uniforms, torch.float32, self._device),
            lengths,
            generated,
            previous=newest()[: len(logits)] if plan.watermarked else None,
            masks=None if sampling.masks is None else to_device(sampling.masks.result(), torch.int32, self._device),
        )

    def _plan(self, rows: ChoosingRows) -> SamplingPlan:
        if self._planned is None or self._planned[0] is not rows:
            asked = rows.params, rows.top_n, rows.counts_rows
            plan = SamplingPlan.build(*asked, self._vocab_size, self._device, rows.watermark)
            self._planned = rows, plan
        return self._planned[1]


def rehearse(vocab_size: int, dtype: torch.dtype, device: torch.device) -> None:
    """Choose once in each way by logits of this type, so that no request waits for kernels to be compiled.

    It touches nothing that others use, and may run beside all else.
    """
    with on_device(device):
        choose, numbers = Chooser(vocab_size, device), torch.zeros(2, vocab_size, dtype=dtype, device=device)
        for params in (SamplingParams(), SamplingParams(temperature=0.5), SamplingParams(top_k=5, top_p=0.5)):
            rows = ChoosingRows([params, params], [0, 0], [CountsRows()] * 2, WatermarkParams())
            for logits in (numbers, numbers.float()):
                choose(logits, SamplingInput(rows, [0.0, 0.0], [1, 1], [0, 0]), lambda: numbers)
