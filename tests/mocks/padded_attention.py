"""Attention whose heads are wider than the model's, as kernels are that are made for a few sizes."""

from dataclasses import replace

from text_generation_server.attention.base import AttentionShape
from text_generation_server.attention.sdpa import SdpaAttention

PADDING = 8


class PaddedAttention(SdpaAttention):
    """Torch's own, with eight zeros behind each head."""

    name = "padded"

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__(replace(shape, state=replace(shape.state, head_dim=shape.state.head_dim + PADDING)))

    @staticmethod
    def cached_head_dim(shape: AttentionShape) -> int:
        """See `BackendClass`."""
        return shape.state.head_dim + PADDING
