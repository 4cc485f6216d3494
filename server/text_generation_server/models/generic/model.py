"""A transformers model as the engine sees one. Knows nothing of how it was found fit for that."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from text_generation_server.attention.base import AttentionBackend
from text_generation_server.models.generic.bridge import Note
from text_generation_server.models.step import StateSpec, StepInput


@dataclass(frozen=True, slots=True)
class GenericModel:
    """Satisfies `ServedModel`. picks_logits: whether the model's code can compute logits of some tokens only."""

    model: Any
    note: Note
    state: StateSpec
    attention: AttentionBackend
    vocab_size: int
    max_positions: int | None
    picks_logits: bool
    shares_prefixes: bool = True

    def forward(self, step: StepInput) -> Tensor:
        """See `ServedModel`."""
        self.note.plan, self.note.cache = step.attention, step.cache
        picked = {"logits_to_keep": step.logit_rows} if self.picks_logits else {}
        ids, positions = step.token_ids[None], step.positions[None]
        logits: Tensor = self.model(input_ids=ids, position_ids=positions, use_cache=False, **picked).logits[0]
        return logits if self.picks_logits else logits[step.logit_rows]
