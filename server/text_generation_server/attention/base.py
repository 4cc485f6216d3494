"""What every attention backend is asked, and which backends there are. Knows no kernel."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

from loguru import logger
from torch import Tensor

from text_generation_server.cache.paged import PagedCache, StateSpec
from text_generation_server.errors import UnsupportedModel

BACKENDS = {
    "flashinfer": "text_generation_server.attention.flashinfer:FlashInferAttention",
    "sdpa": "text_generation_server.attention.sdpa:SdpaAttention",
}
"""Where each backend's class is, the preferred first; imported when tried, so that none needs the others' libraries."""

AUTO = "auto"
"""The name that stands for the first backend that can serve the model."""


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


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """What a rank's model asks of a backend. heads: query heads of the rank."""

    variants: tuple[AttentionVariant, ...]
    heads: int
    state: StateSpec


class AttentionBackend(Protocol):
    """A way to compute attention over paged slots, for models of one shape."""

    name: str
    slot_major: bool

    def plan(self, layout: RowLayout) -> AttentionPlan:
        """Prepare one step."""


class BackendClass(Protocol):
    """What makes a backend."""

    def __call__(self, shape: AttentionShape) -> AttentionBackend:
        """For models of this shape, which must be supported."""

    def why_not(self, shape: AttentionShape) -> str | None:
        """None, or why such a model cannot be computed."""


def create_backend(name: str, shape: AttentionShape) -> AttentionBackend:
    """The named backend, or with `auto` the first that can serve a model of this shape.

    Raises:
        UnsupportedModel: there is no such backend, or it cannot compute a variant.
    """
    if name != AUTO and name not in BACKENDS:
        raise UnsupportedModel(f"attention backend is {name!r}, expected {AUTO}, {' or '.join(BACKENDS)}")
    reasons: list[str] = []
    for candidate in BACKENDS if name == AUTO else (name,):
        made = _backend_class(candidate)
        if (reason := made.why_not(shape)) is None:
            if reasons and shape.state.device.type != "cpu":
                logger.info("Attention by {}, because {}", candidate, "; ".join(reasons))
            return made(shape)
        reasons.append(f"{candidate} cannot serve this model: {reason}")
    raise UnsupportedModel("; ".join(reasons))


def _backend_class(name: str) -> BackendClass:
    module, _, attribute = BACKENDS[name].partition(":")
    found: BackendClass = getattr(import_module(module), attribute)
    return found
