"""What every attention backend is asked, and which backends there are. Knows no kernel."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

from loguru import logger
from torch import Tensor

from text_generation_server.cache.layout import DecodePreparation, RowLayout, TokenPreparation
from text_generation_server.cache.narrow import UNSCALED, KVScales
from text_generation_server.cache.paged import PagedCache, PagedSpec
from text_generation_server.errors import UnsupportedModel

BACKENDS = {
    "flashinfer": "text_generation_server.attention.flashinfer:FlashInferAttention",
    "triton": "text_generation_server.attention.triton:TritonAttention",
    "sdpa": "text_generation_server.attention.sdpa:SdpaAttention",
    "tokenwise": "text_generation_server.attention.tokenwise:TokenwiseAttention",
}
"""Where each backend's class is; imported when tried, so that none needs the others' libraries."""

AUTO, CLASSIC, TOKENWISE = "auto", "classic", "tokenwise"
GROUPS = {AUTO: ("flashinfer", "triton", "sdpa"), CLASSIC: ("triton", "sdpa")}
"""Names that stand for the first backend that can serve the model: of all, or of those with nothing to install."""


@dataclass(frozen=True, slots=True)
class AttentionVariant:
    """What a query may see and how distance counts; all layers of a variant share one plan.

    window: newest keys a query sees, itself included; None for all.
    alibi: slope of each query head of this rank, added as −slope · distance to the scaled scores; None for no bias.
    softcap: bounds scaled scores to ±softcap by tanh, before any bias; None for no bound.
    sinks: whether layers have a score of each head that takes part in the softmax, and no value.
    """

    window: int | None = None
    alibi: tuple[float, ...] | None = None
    softcap: float | None = None
    sinks: bool = False


@dataclass(frozen=True, slots=True)
class LayerAttention:
    """One layer's attention: its place in the cache, its variant (an index), and the scale of its scores.

    scale: of products with keys as the cache holds them. scales: what keys and values are divided by to be held; a plan
    answers with values as they are held, and whoever asked multiplies.
    sinks: [H] float32 on the device, where the variant has such.
    """

    layer: int
    variant: int
    scale: float
    scales: KVScales = UNSCALED
    sinks: Tensor | None = None


class AttentionPlan(Protocol):
    """A backend's preparations for one step, made once and used by every layer."""

    def run(self, q: Tensor, layer: LayerAttention, cache: PagedCache) -> Tensor:
        """Attend with queries [T, H, d] to keys and values that are in their slots already; [T, H · d]."""


class DecodePlan(AttentionPlan, DecodePreparation, Protocol):
    """A plan for steps of one token a row that is made once."""


class TokenPlan(AttentionPlan, TokenPreparation, Protocol):
    """A plan for steps of so many tokens, of whichever rows, that is made once.

    The answer is in the same tensor each time; what it has for padding is some finite number.
    """


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """What a rank's model asks of a backend. heads: query heads of the rank."""

    variants: tuple[AttentionVariant, ...]
    heads: int
    state: PagedSpec


class AttentionBackend(Protocol):
    """A way to compute attention over paged slots, for models of one shape.

    slot_major, head_dim: of the cache it reads. Queries, keys and values that are narrower get zeros behind.
    """

    name: str
    slot_major: bool
    head_dim: int

    def plan(self, layout: RowLayout) -> AttentionPlan:
        """Prepare one step."""

    def decode_plans(self, rows: Tensor, seq_lens: Tensor, block_table: Tensor) -> Sequence[DecodePlan]:
        """Plans for steps of as many rows as there are in `rows` [R] and `seq_lens` [R], int64 on the device.

        The first that suits is to be used, the last suits always; there are none if this backend cannot be replayed.
        """

    def token_plans(self, tokens: int, block_table: Tensor) -> Sequence[TokenPlan]:
        """Plans for steps of `tokens` tokens, prompts among them: the first that suits is to be used, if one does."""


class BackendClass(Protocol):
    """What makes a backend. slot_major: of those it makes."""

    @property
    def slot_major(self) -> bool: ...

    def cached_head_dim(self, shape: AttentionShape) -> int:
        """Numbers of a head in the cache of those it makes."""

    def __call__(self, shape: AttentionShape) -> AttentionBackend:
        """For models of this shape, which must be supported."""

    def why_not(self, shape: AttentionShape) -> str | None:
        """None, or why such a model cannot be computed."""


def create_backend(name: str, shape: AttentionShape) -> AttentionBackend:
    """The named backend, made. Raises as `choose_backend`."""
    return choose_backend(name, shape)(shape)


def choose_backend(name: str, shape: AttentionShape) -> BackendClass:
    """What makes the named backend, or of a named group the first that can serve a model of this shape.

    To make one may take seconds, for kernels have to be found or compiled; to choose it does not.

    Raises:
        UnsupportedModel: there is no such backend, or it cannot compute a variant.
    """
    if name not in GROUPS and name not in BACKENDS:
        raise UnsupportedModel(f"attention backend is {name!r}, expected {' or '.join((*GROUPS, *BACKENDS))}")
    reasons: list[str] = []
    for candidate in GROUPS.get(name, (name,)):
        made = _backend_class(candidate)
        if (reason := made.why_not(shape)) is None:
            if reasons and shape.state.device.type != "cpu":
                logger.info("Attention by {}, because {}", candidate, "; ".join(reasons))
            _tell_padding(candidate, shape.state.head_dim, made.cached_head_dim(shape))
            return made
        reasons.append(f"{candidate} cannot serve this model: {reason}")
    raise UnsupportedModel("; ".join(reasons))


def _tell_padding(name: str, head_dim: int, padded: int) -> None:
    if padded != head_dim:
        logger.info(
            "Heads of {} numbers get zeros up to the {} that {} takes: keys, values and the projections around "
            "attention take {:.2f} times the memory",
            *(head_dim, padded, name, padded / head_dim),
        )


def _backend_class(name: str) -> BackendClass:
    module, _, attribute = BACKENDS[name].partition(":")
    found: BackendClass = getattr(import_module(module), attribute)
    return found
