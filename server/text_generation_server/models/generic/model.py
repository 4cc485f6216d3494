"""A transformers model as the engine sees one. Knows nothing of how it was found fit for that."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from text_generation_server.attention.base import AttentionBackend
from text_generation_server.cache.paged import PagedSpec
from text_generation_server.models.attending import AttendingModel
from text_generation_server.models.generic.bridge import Note
from text_generation_server.models.step import StepInput


@dataclass(frozen=True, slots=True)
class GenericModel(AttendingModel):
    """Satisfies `ServedModel`. picks_logits: whether the model's code can compute logits of some tokens only."""

    model: Any
    note: Note
    kv: PagedSpec
    attention: AttentionBackend
    vocab_size: int
    max_positions: int | None
    picks_logits: bool
    linears: tuple[()] = ()
    records: bool = False

    def hidden(self, step: StepInput) -> Tensor:
        """See `ServedModel`: the logits already, as the model's code gives them."""
        self.note.step = step
        rows = step.logit_rows
        picked = {"logits_to_keep": rows} if self.picks_logits and rows is not None else {}
        ids, positions = step.token_ids[None], step.positions[None]
        logits: Tensor = self.model(input_ids=ids, position_ids=positions, use_cache=False, **picked).logits[0]
        return logits if rows is None or self.picks_logits else logits[rows]

    def logits(self, hidden: Tensor, rows: Tensor | None) -> Tensor:
        """See `ServedModel`."""
        return hidden if rows is None else hidden[rows]
