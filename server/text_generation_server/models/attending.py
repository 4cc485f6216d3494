"""What every model is to the engine whose tokens see each other by attention over paged slots, and by nothing else."""

from collections.abc import Sequence

import torch
from torch import Tensor

from text_generation_server.attention.base import AttentionBackend
from text_generation_server.cache.layout import DecodePreparation, RowLayout, TokenPreparation
from text_generation_server.cache.paged import PagedSpec
from text_generation_server.cache.states import StateSpec
from text_generation_server.models.step import Reader


class AttendingModel:
    """The part of `ServedModel` that follows from the one state, `kv`, and the backend that reads it, `attention`."""

    __slots__ = ()

    encoder = None
    reader: Reader | None = None
    kv: PagedSpec
    attention: AttentionBackend

    @property
    def states(self) -> tuple[StateSpec, ...]:
        """See `ServedModel`."""
        return (self.kv,)

    @property
    def dtype(self) -> torch.dtype:
        """See `ServedModel`."""
        return self.kv.dtype

    @property
    def device(self) -> torch.device:
        """See `ServedModel`."""
        return self.kv.device

    @property
    def mixing(self) -> str:
        """See `ServedModel`."""
        return f"{self.attention.name} attention"

    def prepare(self, layout: RowLayout) -> object:
        """See `ServedModel`."""
        return self.attention.plan(layout)

    def decode_plans(self, rows: Tensor, seq_lens: Tensor, block_table: Tensor) -> Sequence[DecodePreparation]:
        """See `ServedModel`."""
        return self.attention.decode_plans(rows, seq_lens, block_table)

    def token_plans(self, tokens: int, block_table: Tensor) -> Sequence[TokenPreparation]:
        """See `ServedModel`."""
        return self.attention.token_plans(tokens, block_table)
