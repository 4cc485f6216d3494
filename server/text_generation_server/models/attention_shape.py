"""What a spec asks of an attention backend, before anything is read. Knows no checkpoint and no backend."""

import torch

from text_generation_server.attention.base import AttentionShape, AttentionVariant
from text_generation_server.cache.paged import PagedSpec
from text_generation_server.layers.alibi import spec_slopes
from text_generation_server.specs.decoder import DecoderSpec
from text_generation_server.weights.layout import Heads


def attention_shape(
    spec: DecoderSpec, mine: Heads, dtype: torch.dtype, device: torch.device, narrow: torch.dtype | None = None
) -> AttentionShape:
    """For a rank with these heads. narrow: see `PagedSpec`."""
    variants = tuple(dict.fromkeys(layer_variants(spec, mine)))
    sizes = len(spec.attending), len(mine.kv), spec.attention.head_dim
    state = PagedSpec(*sizes, dtype, device, narrow=narrow)
    return AttentionShape(variants, len(mine.query), state)


def layer_variants(spec: DecoderSpec, mine: Heads) -> list[AttentionVariant]:
    """The kind of attention of each layer."""
    attention = spec.attention
    slopes = None if attention.alibi is None else spec_slopes(attention.alibi, attention.heads, mine.query)
    bounds = attention.softcap, attention.sinks
    return [AttentionVariant(_window(spec, layer), slopes, *bounds) for layer in range(spec.num_layers)]


def _window(spec: DecoderSpec, layer: int) -> int | None:
    """The layer's window, None too where one is longer than any sequence: plain attention is faster."""
    window, longest = spec.attention.window_of(layer), spec.max_positions
    return None if window is None or (longest is not None and window >= longest.tokens) else window
