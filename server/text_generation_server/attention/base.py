"""What every attention backend is asked, and which backends there are. Knows no kernel."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

from torch import Tensor

from text_generation_server.cache.paged import PagedCache, StateSpec
from text_generation_server.errors import UnsupportedModel

BACKENDS = {"sdpa": "text_generation_server.attention.sdpa:SdpaAttention"}
"""Where each backend's class is; imported when chosen, so that no backend's libraries are needed by the others."""


@dataclass(frozen=True, slots=True)
class AttentionVariant:
    """What a query may see and how distance counts; all layers of a variant share one plan.

    window: newest keys a query sees, itself included; None for all.
    alibi: slope of each query head of this rank, added as −slope · distance to the scaled scores; None for no bias.
    softcap: bounds scaled scores to ±softcap by tanh, before any bias; None for no bound.
    """

    window: int | None = None
    alibi: tuple[float, ...] | None = None
    softcap: float | None = None


@dataclass(frozen=True, slots=True)
class LayerAttention:
    """One layer's attention: its place in the cache, its variant (an index), and the scale of its scores."""

    layer: int
    variant: int
    scale: float


@dataclass(frozen=True, slots=True)
class RowLayout:
    """Host facts of one step.

    rows: row of the slot table of each sequence in the step.
    query_lens: tokens of each that are computed now.
    kv_lens: keys that the last of them sees.
    slot_table: [rows, positions] int64 on the device, the slot of each position of each row.
    """

    rows: Sequence[int]
    query_lens: Sequence[int]
    kv_lens: Sequence[int]
    slot_table: Tensor


class AttentionPlan(Protocol):
    """A backend's preparations for one step, made once and used by every layer."""

    def run(self, q: Tensor, kv: Tensor, layer: LayerAttention, cache: PagedCache) -> Tensor:
        """Write keys and values to their slots, then attend.

        Args:
            q: [T, H, d]
            kv: [T, 2 · K, d], keys first.

        Returns:
            [T, H · d]
        """


class AttentionBackend(Protocol):
    """A way to compute attention over paged slots."""

    name: str

    def supports(self, variant: AttentionVariant, head_dim: int) -> str | None:
        """None, or why such layers cannot be computed."""

    def plan(self, layout: RowLayout) -> AttentionPlan:
        """Prepare one step."""


def create_backend(name: str, variants: Sequence[AttentionVariant], state: StateSpec) -> AttentionBackend:
    """The named backend for a model with these variants.

    Raises:
        UnsupportedModel: there is no such backend, or it cannot compute a variant.
    """
    if name not in BACKENDS:
        raise UnsupportedModel(f"attention backend is {name!r}, expected one of {', '.join(BACKENDS)}")
    module, _, attribute = BACKENDS[name].partition(":")
    backend: AttentionBackend = getattr(import_module(module), attribute)(variants, state)
    for variant in variants:
        if (reason := backend.supports(variant, state.head_dim)) is not None:
            raise UnsupportedModel(f"attention backend {name} cannot serve this model: {reason}")
    return backend
