"""Choosing by temperature, top-k and top-p in few kernels. Knows no other parameters; twin: `Warped`."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from text_generation_server.sampling.rows import PlannedRows
from text_generation_server.sampling.sampled import Sampled
from text_generation_server.sampling.warpers import COLDEST

FEW = 512
"""A top-k of at most so many tokens is found at the first look for it."""


@dataclass(frozen=True, slots=True)
class Fused:
    """What each row [S] asks for, neutral where it asks for nothing.

    draws, cuts: whether any row draws, and whether any has a top-k or top-p; deep: whether a cut may lie behind many
    tokens. Kernels that nobody needs are left out.
    """

    drawn: Tensor  # int32: 0 or 1
    temperatures: Tensor  # fp32
    top_k: Tensor  # int32
    top_p: Tensor  # fp64
    draws: bool
    cuts: bool
    deep: bool
    overwrites: bool = False

    @classmethod
    def plan(cls, rows: PlannedRows) -> Self:
        """For rows that want no typical-p."""
        everyone, vocab = range(len(rows.params)), rows.vocab_size
        limited = [params for params in rows.params if 0 < params.top_k < vocab or params.top_p < 1.0]
        return cls(
            drawn=rows.column(everyone, lambda params: params.samples, torch.int32)[:, 0],
            temperatures=rows.column(everyone, lambda params: max(params.temperature, COLDEST), torch.float32)[:, 0],
            top_k=rows.column(everyone, lambda params: min(params.top_k or vocab, vocab), torch.int32)[:, 0],
            top_p=rows.column(everyone, lambda params: params.top_p, torch.float64)[:, 0],
            draws=any(params.samples for params in rows.params),
            cuts=bool(limited),
            deep=any(not 0 < params.top_k <= FEW for params in limited),
        )

    def __call__(self, scores: Tensor, uniforms: Tensor) -> Sampled:
        """Choose by scores [S, vocab] of any float dtype and numbers in [0, 1) [S] fp32, which greedy rows ignore."""
        # Not before there is a device for them: an installation for CPUs may lack Triton.
        from text_generation_server.kernels.sampling.best import best_token
        from text_generation_server.kernels.sampling.choose import choose_token

        if not self.draws:
            return Sampled(*best_token(scores), None)
        asked = self.drawn, self.temperatures, self.top_k, self.top_p
        return Sampled(*choose_token(scores, uniforms, *asked, cuts=self.cuts, deep=self.deep), None)
