"""Logits processors: what a row's past, its watermark or its grammar do to its scores.

Each processor concerns the rows that ask for it and leaves the others untouched, bit for bit. None of them knows how a
token is then chosen; what comes between is in `warpers.py`. Order and definitions: docs/protocol.md#choosing-tokens.
"""

from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from text_generation_server.device.copies import to_device
from text_generation_server.sampling.counts import TokenCounts
from text_generation_server.sampling.rows import MASKED, Planned, PlannedRows, Rows
from text_generation_server.sampling.watermark import green_lists


@dataclass(frozen=True, slots=True)
class StepContext:
    """What processors may look at beside the scores.

    lengths: tokens of each row so far [S] int64. generated: those of them that are its answer's [S] int64.
    previous: the last of them [S] int64; None unless a row is watermarked.
    masks: for the G rows with a grammar, in order, the tokens it allows as bits [G, ceil(vocab / 32)] int32, lowest
        first; None where no row has one.
    """

    lengths: Tensor
    generated: Tensor
    counts: TokenCounts
    previous: Tensor | None = None
    masks: Tensor | None = None


class LogitsProcessor(Planned, Protocol):
    """One step of the way from logits to scores, planned for certain rows."""

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
class LogitBias:
    """Adds what a request says to the scores of the tokens it names."""

    rows: Rows
    places: Tensor  # [P], among these rows
    tokens: Tensor  # [P]
    bias: Tensor  # [P] fp32

    @classmethod
    def plan(cls, rows: PlannedRows) -> Self | None:
        chosen = rows.where(lambda params: bool(params.logit_bias))
        if not chosen:
            return None
        places, tokens = rows.each(lambda params: [token for token, _ in params.logit_bias], chosen)
        bias = [value for row in chosen for _, value in rows.params[row].logit_bias]
        return cls(rows.rows(chosen), places, tokens, to_device(bias, torch.float32, rows.device))

    def __call__(self, scores: Tensor, step: StepContext) -> Tensor:
        part = self.rows.take(scores)
        part[self.places, self.tokens] += self.bias
        return self.rows.put(scores, part)


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
        return cls(rows.rows(chosen), rows.counts(chosen, lambda held: held.whole), penalty)

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
        return cls(rows.rows(chosen), rows.counts(chosen, lambda held: held.whole), penalty)

    def __call__(self, scores: Tensor, step: StepContext) -> Tensor:
        share = step.counts.of(self.counts) / self.rows.take(step.lengths)[:, None]
        return self.rows.put(scores, self.rows.take(scores) - share * self.penalty)


@dataclass(frozen=True, slots=True)
class AnswerPenalty:
    """Subtracts `count` for each time that the answer has a token, and `presence` once if it has it (OpenAI's)."""

    rows: Rows
    counts: Tensor  # [R]
    count: Tensor  # [R, 1]
    presence: Tensor  # [R, 1]

    @classmethod
    def plan(cls, rows: PlannedRows) -> Self | None:
        chosen = rows.where(lambda params: params.penalises_answer)
        if not chosen:
            return None
        return cls(
            rows.rows(chosen),
            rows.counts(chosen, lambda held: held.answer),
            rows.column(chosen, lambda params: params.count_penalty, torch.float32),
            rows.column(chosen, lambda params: params.presence_penalty, torch.float32),
        )

    def __call__(self, scores: Tensor, step: StepContext) -> Tensor:
        times = step.counts.of(self.counts)
        penalty = times * self.count + (times > 0) * self.presence
        return self.rows.put(scores, self.rows.take(scores) - penalty)


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
        byte, bit = torch.arange(256, device=rows.device), torch.arange(8, device=rows.device)
        return cls(rows.rows(chosen), torch.where(byte[:, None] >> bit & 1 == 1, 0.0, MASKED))

    def __call__(self, scores: Tensor, step: StepContext) -> Tensor:
        if step.masks is None:
            raise ValueError("a row with a grammar needs a mask, got None")
        part = self.rows.take(scores)
        # Looking up what whole bytes mean is 30 times faster than shifting bits out of words.
        bias = self.biases.index_select(0, step.masks.view(torch.uint8).flatten().int())
        return self.rows.put(scores, part + bias.view(len(part), -1)[:, : part.shape[-1]])


@dataclass(frozen=True, slots=True)
class EarlyEnds:
    """Forbids the tokens that end an answer while it has fewer than `least`, unless nothing else may follow."""

    rows: Rows
    places: Tensor  # [P], among these rows
    ends: Tensor  # [P]
    least: Tensor  # [R, 1]

    @classmethod
    def plan(cls, rows: PlannedRows) -> Self | None:
        chosen = rows.where(lambda params: params.least > 0)
        if not chosen:
            return None
        places, ends = rows.each(lambda params: params.ends, chosen)
        return cls(rows.rows(chosen), places, ends, rows.column(chosen, lambda params: params.least, torch.int64))

    def __call__(self, scores: Tensor, step: StepContext) -> Tensor:
        part = self.rows.take(scores)
        going_on = part.clone()
        going_on[self.places, self.ends] = MASKED
        early = self.rows.take(step.generated)[:, None] < self.least
        possible = going_on.amax(-1, keepdim=True) > MASKED
        return self.rows.put(scores, torch.where(early & possible, going_on, part))


PROCESSORS: tuple[type[LogitsProcessor], ...] = (
    Watermark,
    LogitBias,
    RepetitionPenalty,
    FrequencyPenalty,
    AnswerPenalty,
    Grammar,
    EarlyEnds,
)
"""All of them, in the order in which they are applied."""
