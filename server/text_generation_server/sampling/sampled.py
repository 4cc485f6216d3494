"""What the sampler chose, on the device and on the host, with the rules for lists of top tokens.

Those rules: docs/protocol.md#log-probabilities.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Self

import torch
from torch import Tensor

from text_generation_server.device.copies import to_host
from text_generation_server.sampling.rows import Rows

MAX_TIES = 32
"""A list of n top tokens holds at most n + MAX_TIES entries, however many tie with the n-th."""


@dataclass(frozen=True, slots=True)
class HostSampled:
    """One entry a row: token, its natural-log probability, and its top tokens with theirs, best first (or none)."""

    ids: list[int]
    logprobs: list[float]
    top: list[list[tuple[int, float]]]


@dataclass(frozen=True, slots=True)
class TopTokens:
    """Candidates [R, k], best first, for the lists of the rows that want one; `wanted` has the n of all S rows."""

    wanted: tuple[int, ...]
    ids: Tensor
    logprobs: Tensor

    def start_copy(self) -> Self:
        """The same on the host, once the device has got there."""
        return replace(self, ids=to_host(self.ids), logprobs=to_host(self.logprobs))

    def lists(self) -> list[list[tuple[int, float]]]:
        """The list of every row, empty where none is wanted."""
        candidates = zip(self.ids.tolist(), self.logprobs.tolist(), strict=True)
        return [_top_list(n, *next(candidates)) if n else [] for n in self.wanted]


@dataclass(frozen=True, slots=True)
class HostCopy:
    """What was sampled, on its way to the host: readable when an event recorded behind `start_copy` has passed."""

    ids: Tensor
    logprobs: Tensor
    top: TopTokens | None

    def read(self) -> HostSampled:
        """The choice as plain Python values. Does not wait: before its time it reads anything."""
        top = [[] for _ in self.ids] if self.top is None else self.top.lists()
        return HostSampled(self.ids.tolist(), self.logprobs.tolist(), top)


@dataclass(frozen=True, slots=True)
class Sampled:
    """Tokens [S] int64 and their log-probabilities [S] fp32 on the device."""

    ids: Tensor
    logprobs: Tensor
    top: TopTokens | None

    def start_copy(self) -> HostCopy:
        """Let the stream copy the choice into pinned memory. Waits for nothing."""
        top = None if self.top is None else self.top.start_copy()
        return HostCopy(to_host(self.ids), to_host(self.logprobs), top)


@dataclass(frozen=True, slots=True)
class TopPlan:
    """How many top tokens each row of a step wants, and how many candidates that takes."""

    wanted: tuple[int, ...]
    rows: Rows
    width: int

    @classmethod
    def build(cls, top_n: Sequence[int], vocab_size: int, device: torch.device) -> Self | None:
        """Plan for rows that want `top_n` tokens each, 0 being none; None when no row wants any."""
        wanting = [row for row, n in enumerate(top_n) if n > 0]
        if not wanting:
            return None
        return cls(tuple(top_n), Rows.of(wanting, len(top_n), device), min(max(top_n) + MAX_TIES, vocab_size))

    def select(self, logprobs: Tensor) -> TopTokens:
        """The candidates among `logprobs` [S, vocab]."""
        best = self.rows.take(logprobs).topk(self.width)
        return TopTokens(self.wanted, best.indices, best.values)


def _top_list(n: int, ids: list[int], logprobs: list[float]) -> list[tuple[int, float]]:
    """The n best and the ties with the n-th; impossible tokens are left out, equals are in the order of their ids."""
    threshold = logprobs[min(n, len(logprobs)) - 1]
    best = zip(ids[: n + MAX_TIES], logprobs[: n + MAX_TIES], strict=True)
    kept = [(token, logprob) for token, logprob in best if logprob >= threshold and logprob > -inf]
    return sorted(kept, key=lambda entry: (-entry[1], entry[0]))
