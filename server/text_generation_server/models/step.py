"""The seam between engine and models: what a step brings, what a model promises. Knows neither requests nor layers."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from text_generation_server.attention.base import AttentionBackend, AttentionPlan
from text_generation_server.cache.paged import PagedCache, StateSpec

__all__ = ["ServedModel", "StateSpec", "StepInput"]


@dataclass(frozen=True, slots=True)
class StepInput:
    """One forward over T tokens of several sequences, laid end to end.

    token_ids: [T] int64.
    positions: [T] int64, of each token in its sequence.
    spans: [T] int64, positions that each token's sequence may reach in all.
    slots: [T] int64, where each token's keys and values go.
    logit_rows: [L] int64, indices into T whose logits are wanted; None for all, in order.
    attention: made for this step by the model's own backend.
    cache: where the step's keys and values go.
    """

    token_ids: Tensor
    positions: Tensor
    spans: Tensor
    slots: Tensor
    logit_rows: Tensor | None
    attention: AttentionPlan
    cache: PagedCache


class ServedModel(Protocol):
    """One rank of a loaded model."""

    @property
    def state(self) -> StateSpec:
        """What to allocate for it."""

    @property
    def attention(self) -> AttentionBackend:
        """Makes the plans of its steps."""

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""

    @property
    def max_positions(self) -> int | None:
        """Positions it can address, None if unbounded."""

    @property
    def shares_prefixes(self) -> bool:
        """Whether a prefix's keys and values are the same whatever length its sequence may reach."""

    @property
    def records(self) -> bool:
        """Whether steps can be recorded: nothing in them waits for the device or depends on numbers of the host."""

    def hidden(self, step: StepInput) -> Tensor:
        """What `logits` is to be made of [L, …]; the last layer need not go on with any other token."""

    def logits(self, hidden: Tensor, rows: Tensor | None) -> Tensor:
        """Logits [L, vocab_size] in the model's dtype, the same on every rank, of these rows of `hidden` or of all."""


def forward(model: ServedModel, step: StepInput) -> Tensor:
    """Logits [L, vocab_size] of a step."""
    return model.logits(model.hidden(step), None)
