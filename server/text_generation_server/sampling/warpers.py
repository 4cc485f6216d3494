"""Warpers: what temperature, top-k, top-p, min-p and typical-p do to scores before a token is drawn.

Each one concerns the rows that ask for it and leaves the others untouched, bit for bit. They know the scores alone.
Order and definitions: docs/protocol.md#choosing-tokens.
"""

from dataclasses import dataclass
from math import log
from typing import Protocol, Self

import torch
from torch import Tensor

from text_generation_server.sampling.mass import cutoff, exact_sum
from text_generation_server.sampling.rows import MASKED, Planned, PlannedRows, Rows

COLDEST = 1e-20
"""Lower temperatures are taken as this one: the choice is the same, and scores divided by it do not overflow."""


class Warper(Planned, Protocol):
    """One step of the way from scores to the distribution that is drawn from, planned for certain rows."""

    def __call__(self, scores: Tensor) -> Tensor:
        """Warp `scores` [S, vocab] fp32, in place or not."""


@dataclass(frozen=True, slots=True)
class Temperature:
    """Divides by the temperature."""

    rows: Rows
    temperature: Tensor  # [R, 1]

    @classmethod
    def plan(cls, rows: PlannedRows) -> Self | None:
        chosen = rows.where(lambda params: params.temperature != 1.0)
        if not chosen:
            return None
        temperature = rows.column(chosen, lambda params: max(params.temperature, COLDEST), torch.float32)
        return cls(rows.rows(chosen), temperature)

    def __call__(self, scores: Tensor) -> Tensor:
        return self.rows.put(scores, self.rows.take(scores) / self.temperature)


@dataclass(frozen=True, slots=True)
class TopK:
    """Keeps the k best tokens, and ties with the last of them."""

    rows: Rows
    last: Tensor  # [R, 1]: k - 1
    largest_k: int

    @classmethod
    def plan(cls, rows: PlannedRows) -> Self | None:
        chosen = rows.where(lambda params: 0 < params.top_k < rows.vocab_size)
        if not chosen:
            return None
        largest_k = max(rows.params[row].top_k for row in chosen)
        return cls(rows.rows(chosen), rows.column(chosen, lambda params: params.top_k - 1, torch.int64), largest_k)

    def __call__(self, scores: Tensor) -> Tensor:
        part = self.rows.take(scores)
        worst = part.topk(self.largest_k).values.gather(-1, self.last)
        return self.rows.put(scores, part.masked_fill(part < worst, MASKED))


@dataclass(frozen=True, slots=True)
class TopP:
    """Keeps the fewest best tokens whose probabilities reach p, and ties with the last (Holtzman et al., 2020)."""

    rows: Rows
    mass: Tensor  # [R, 1] fp64

    @classmethod
    def plan(cls, rows: PlannedRows) -> Self | None:
        chosen = rows.where(lambda params: params.top_p < 1.0)
        if not chosen:
            return None
        return cls(rows.rows(chosen), rows.column(chosen, lambda params: params.top_p, torch.float64))

    def __call__(self, scores: Tensor) -> Tensor:
        part = self.rows.take(scores)
        worst = cutoff(part, part.softmax(-1), self.mass)
        return self.rows.put(scores, part.masked_fill(part < worst, MASKED))


@dataclass(frozen=True, slots=True)
class MinP:
    """Keeps the tokens that are at least p times as likely as the best one (Nguyen et al., 2024)."""

    rows: Rows
    below_best: Tensor  # [R, 1]: log p

    @classmethod
    def plan(cls, rows: PlannedRows) -> Self | None:
        chosen = rows.where(lambda params: params.min_p > 0.0)
        if not chosen:
            return None
        return cls(rows.rows(chosen), rows.column(chosen, lambda params: log(params.min_p), torch.float32))

    def __call__(self, scores: Tensor) -> Tensor:
        part = self.rows.take(scores)
        worst = part.amax(-1, keepdim=True) + self.below_best
        return self.rows.put(scores, part.masked_fill(part < worst, MASKED))


@dataclass(frozen=True, slots=True)
class Typical:
    """Keeps the tokens of surprise nearest to the entropy until their probabilities reach p (Meister et al., 2022)."""

    rows: Rows
    mass: Tensor  # [R, 1] fp64

    @classmethod
    def plan(cls, rows: PlannedRows) -> Self | None:
        chosen = rows.where(lambda params: params.typical_p < 1.0)
        if not chosen:
            return None
        return cls(rows.rows(chosen), rows.column(chosen, lambda params: params.typical_p, torch.float64))

    def __call__(self, scores: Tensor) -> Tensor:
        part = self.rows.take(scores)
        logprobs, probs = part.log_softmax(-1), part.softmax(-1)
        # A masked token has probability 0; the floor only keeps 0 times infinity out of the sum.
        entropy = -exact_sum(probs * logprobs.clamp(min=torch.finfo(torch.float32).min))
        typicality = (logprobs + entropy).abs_().neg_()
        worst = cutoff(typicality, probs, self.mass)
        return self.rows.put(scores, part.masked_fill(typicality < worst, MASKED))


WARPERS: tuple[type[Warper], ...] = (Temperature, TopK, TopP, MinP, Typical)
"""All of them, in the order in which they are applied."""
