"""Ways to choose the tokens of a step from scores, and which rows go which way.

Knows nothing of what was done to the scores before. Every row goes its own way whatever the others ask for, so that
their presence does not change its token.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Tensor

from text_generation_server.sampling.fused import Fused
from text_generation_server.sampling.mass import draw
from text_generation_server.sampling.params import SamplingParams
from text_generation_server.sampling.rows import PlannedRows, Rows, planned
from text_generation_server.sampling.sampled import Sampled, TopPlan
from text_generation_server.sampling.warpers import WARPERS, Warper


class SamplingMethod(Protocol):
    """A way to choose, planned for all rows of a step."""

    @property
    def overwrites(self) -> bool:
        """Whether it may change fp32 scores in place."""

    def __call__(self, scores: Tensor, uniforms: Tensor) -> Sampled:
        """Choose by scores [S, vocab] of any float dtype and numbers in [0, 1) [S] fp32, which greedy rows ignore."""


@dataclass(frozen=True, slots=True)
class Warped:
    """In torch's own operations: any device, any parameters, lists of top tokens.

    drawn: the rows that draw their token, None if all are greedy.
    """

    warpers: tuple[Warper, ...]
    drawn: Rows | None
    top: TopPlan | None

    @classmethod
    def plan(cls, rows: PlannedRows, top_n: Sequence[int]) -> Self:
        """For rows that want `top_n` top tokens each."""
        drawn = rows.where(lambda params: params.samples)
        return cls(
            warpers=planned(WARPERS, rows),
            drawn=rows.rows(drawn) if drawn else None,
            top=TopPlan.build(top_n, rows.vocab_size, rows.device),
        )

    @property
    def overwrites(self) -> bool:
        return bool(self.warpers)

    def __call__(self, scores: Tensor, uniforms: Tensor) -> Sampled:
        scores = scores.float()
        for warper in self.warpers:
            scores = warper(scores)
        ids = self._chosen(scores, uniforms)
        logprobs = scores.log_softmax(-1)
        top = None if self.top is None else self.top.select(logprobs)
        return Sampled(ids, logprobs.gather(-1, ids[:, None])[:, 0], top)

    def _chosen(self, scores: Tensor, uniforms: Tensor) -> Tensor:
        if self.drawn is None:
            return _best(scores)
        tokens = draw(self.drawn.take(scores).softmax(-1), self.drawn.take(uniforms))
        return tokens if self.drawn.index is None else self.drawn.put(_best(scores), tokens)


@dataclass(frozen=True, slots=True)
class MixedMethod:
    """Some rows in few kernels, the others in torch's operations; `top_n` has the top tokens that all of them want."""

    fused_rows: Rows
    fused: Fused
    warped_rows: Rows
    warped: Warped
    top_n: tuple[int, ...]
    overwrites: bool = False

    def __call__(self, scores: Tensor, uniforms: Tensor) -> Sampled:
        ids = torch.empty(len(scores), dtype=torch.int64, device=scores.device)
        logprobs = torch.empty(len(scores), dtype=torch.float32, device=scores.device)
        fused = self.fused(self.fused_rows.take(scores), self.fused_rows.take(uniforms))
        warped = self.warped(self.warped_rows.take(scores), self.warped_rows.take(uniforms))
        for rows, part in ((self.fused_rows, fused), (self.warped_rows, warped)):
            ids, logprobs = rows.put(ids, part.ids), rows.put(logprobs, part.logprobs)
        return Sampled(ids, logprobs, None if warped.top is None else replace(warped.top, wanted=self.top_n))


def plan_method(rows: PlannedRows, top_n: Sequence[int], kernels: bool) -> SamplingMethod:
    """How rows choose that want `top_n` top tokens each; `kernels`: whether the device runs ours."""
    fits = [kernels and _fits(params, n) for params, n in zip(rows.params, top_n, strict=True)]
    fused = [row for row, fit in enumerate(fits) if fit]
    if not fused:
        return Warped.plan(rows, top_n)
    if len(fused) == len(fits):
        return Fused.plan(rows)
    warped = [row for row, fit in enumerate(fits) if not fit]
    return MixedMethod(
        rows.rows(fused),
        Fused.plan(rows.part(fused)),
        rows.rows(warped),
        Warped.plan(rows.part(warped), [top_n[row] for row in warped]),
        tuple(top_n),
    )


def _fits(params: SamplingParams, top_n: int) -> bool:
    return params.typical_p == 1.0 and params.min_p == 0.0 and not top_n


def _best(scores: Tensor) -> Tensor:
    """The first best token of each row [S] int64."""
    if scores.is_cpu:
        return torch.from_numpy(scores.numpy().argmax(-1))  # vectorised, unlike torch's: 10 times faster
    return scores.argmax(-1)
