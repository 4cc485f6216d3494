"""Logits processors: what turns the scores of a step's rows into the distribution a token is chosen from.

Each processor concerns the rows that ask for it and leaves the others untouched, bit for bit. None of them knows how a
token is then chosen. Order and definitions: protocol §7.2.
"""

from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from text_generation_server.sampling.counts import TokenCounts
from text_generation_server.sampling.mass import cutoff, exact_sum
from text_generation_server.sampling.rows import PlannedRows, Rows
from text_generation_server.sampling.watermark import green_lists

MASKED = float("-inf")
COLDEST = 1e-20
"""Lower temperatures are taken as this one: the choice is the same, and scores divided by it do not overflow."""


@dataclass(frozen=True, slots=True)
class StepContext:
    """What processors may look at beside the scores.

    lengths: tokens of each row so far [S] int64.
    previous: the last of them [S] int64; None unless a row is watermarked.
    masks: for the G rows with a grammar, in order, the tokens it allows as bits [G, ceil(vocab / 32)] int32, lowest
        first; None where no row has one.
    """

    lengths: Tensor
    counts: TokenCounts
    previous: Tensor | None = None
    masks: Tensor | None = None


class LogitsProcessor(Protocol):
    """One step of the way from logits to scores, planned for certain rows."""

    @classmethod
    def plan(cls, rows: PlannedRows) -> Self | None:
        """The processor for the rows that want it, None when no row does."""

    def __call__(self, scores: Tensor, step: StepContext) -> Tensor:
        """Process `scores` [S, vocab] fp32, in place or not."""


@dataclass(frozen=True, slots=True)
class Watermark:
    """Adds delta to the scores of the green tokens (Kirchenbauer et al., 2023)."""

    rows: Rows
    green_tokens: int
    delta: float

    @classmethod
    def plan(cls, rows: PlannedRows) -> Self | None:
        chosen = rows.where(lambda params: params.watermark)
        if not chosen:
            return None
        return cls(rows.rows(chosen), int(rows.vocab_size * rows.watermark.gamma), rows.watermark.delta)

    def __call__(self, scores: Tensor, step: StepContext) -> Tensor:
        if step.previous is None:
            raise ValueError("a watermarked row needs the token before the one it chooses, got None")
        part = self.rows.take(scores)
        green = green_lists(self.rows.take(step.previous), part.shape[-1], self.green_tokens)
        return self.rows.put(scores, part + green * self.delta)


@dataclass(frozen=True, slots=True)
class RepetitionPenalty:
    """Divides positive and multiplies negative scores of tokens that occurred (Keskar et al., 2019)."""

    rows: Rows
    counts: Tensor  # [R]
    penalty: Tensor  # [R, 1]

    @classmethod
    def plan(cls, rows: PlannedRows) -> Self | None:
        chosen = rows.where(lambda params: params.repetition_penalty != 1.0)
        if not chosen:
            return None
        penalty = rows.column(chosen, lambda params: params.repetition_penalty, torch.float32)
        return cls(rows.rows(chosen), rows.counts(chosen), penalty)

    def __call__(self, scores: Tensor, step: StepContext) -> Tensor:
        part = self.rows.take(scores)
        # One of the two terms is always zero: branch-free, and several times faster than `where`.
        penalised = part.clamp(min=0) / self.penalty + part.clamp(max=0) * self.penalty
        occurred = step.counts.of(self.counts) > 0
        return self.rows.put(scores, torch.where(occurred, penalised, part))


@dataclass(frozen=True, slots=True)
class FrequencyPenalty:
    """Subtracts `penalty` times the share of the sequence that a token makes up; negative values favour repetition."""

    rows: Rows
    counts: Tensor  # [R]
    penalty: Tensor  # [R, 1]

    @classmethod
    def plan(cls, rows: PlannedRows) -> Self | None:
        chosen = rows.where(lambda params: params.frequency_penalty != 0.0)
        if not chosen:
            return None
        penalty = rows.column(chosen, lambda params: params.frequency_penalty, torch.float32)
        return cls(rows.rows(chosen), rows.counts(chosen), penalty)

    def __call__(self, scores: Tensor, step: StepContext) -> Tensor:
        share = step.counts.of(self.counts) / self.rows.take(step.lengths)[:, None]
        return self.rows.put(scores, self.rows.take(scores) - share * self.penalty)


@dataclass(frozen=True, slots=True)
class Grammar:
    """Masks the tokens that the rows' grammars do not allow now."""

    rows: Rows
    biases: Tensor  # [256, 8] fp32: what a byte of a mask adds to the scores of its 8 tokens

    @classmethod
    def plan(cls, rows: PlannedRows) -> Self | None:
        chosen = rows.where(lambda params: bool(params.grammar))
        if not chosen:
            return None
        allowed = torch.arange(256)[:, None] >> torch.arange(8) & 1 == 1
        return cls(rows.rows(chosen), torch.where(allowed, 0.0, MASKED).to(rows.device))

    def __call__(self, scores: Tensor, step: StepContext) -> Tensor:
        if step.masks is None:
            raise ValueError("a row with a grammar needs a mask, got None")
        part = self.rows.take(scores)
        # Looking up what whole bytes mean is 30 times faster than shifting bits out of words.
        bias = self.biases.index_select(0, step.masks.view(torch.uint8).flatten().int())
        return self.rows.put(scores, part + bias.view(len(part), -1)[:, : part.shape[-1]])


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

    def __call__(self, scores: Tensor, step: StepContext) -> Tensor:
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

    def __call__(self, scores: Tensor, step: StepContext) -> Tensor:
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

    def __call__(self, scores: Tensor, step: StepContext) -> Tensor:
        part = self.rows.take(scores)
        worst = cutoff(part, part.softmax(-1), self.mass)
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

    def __call__(self, scores: Tensor, step: StepContext) -> Tensor:
        part = self.rows.take(scores)
        logprobs, probs = part.log_softmax(-1), part.softmax(-1)
        # A masked token has probability 0; the floor only keeps 0 times infinity out of the sum.
        entropy = -exact_sum(probs * logprobs.clamp(min=torch.finfo(torch.float32).min))
        typicality = (logprobs + entropy).abs_().neg_()
        worst = cutoff(typicality, probs, self.mass)
        return self.rows.put(scores, part.masked_fill(typicality < worst, MASKED))


PROCESSORS: tuple[type[LogitsProcessor], ...] = (
    Watermark,
    RepetitionPenalty,
    FrequencyPenalty,
    Grammar,
    Temperature,
    TopK,
    TopP,
    Typical,
)
"""All of them, in the order in which they are applied."""
