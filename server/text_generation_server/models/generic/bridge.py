"""Where transformers' modeling code calls attention, and we answer. Knows no checkpoint, and only the present step.

transformers looks attention up by name; ours finds what it needs in a note that each attention module carries, because
not every model hands keyword arguments down to its layers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from text_generation_server.attention.base import AttentionPlan, LayerAttention
from text_generation_server.cache.paged import PagedCache
from text_generation_server.models.step import StepInput

SERVING = "kvrun"
"""Attention over pages. No mask is registered under this name, so that models make none."""

PROBING = "kvrun-probe"
"""Attention that answers zeros and writes down how it was called."""

_NOTE = "kvrun_note"

MaskRule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Batch, head, query and key position to whether the query sees the key, as transformers writes masks."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of attention. shape: query heads, key/value heads, width of keys, width of values."""

    layer: int
    shape: tuple[int, int, int, int]
    scale: float
    window: int | None
    softcap: float | None
    mask: MaskRule | None
    strange: tuple[str, ...]


@dataclass(slots=True)
class Note:
    """What the attention modules of one model share: the step that runs, or the calls of a probe.

    padding: zeros that each head gets behind.
    """

    layers: tuple[LayerAttention, ...] = ()
    padding: int = 0
    step: StepInput | None = None
    calls: list[Call] = field(default_factory=list)


def register() -> None:
    """Make both kinds of attention known to transformers; to do it again changes nothing."""
    AttentionInterface.register(SERVING, _serve)
    AttentionInterface.register(PROBING, _probe)
    AttentionMaskInterface.register(PROBING, _mask_rule)


def attach(model: torch.nn.Module, note: Note) -> None:
    """Give the note to every module that knows its layer's number."""
    for module in model.modules():
        if isinstance(getattr(module, "layer_idx", None), int):
            setattr(module, _NOTE, note)


def _serve(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: object, **_: object
) -> tuple[Tensor, None]:
    """[1, H, T, d] and [1, K, T, d] twice to [1, T, H, d]."""
    note: Note = getattr(module, _NOTE)
    assert note.step is not None
    step, layer = note.step, note.layers[module.layer_idx]  # type: ignore[index]
    heads, tokens, head_dim = query.shape[1:]
    q, kv = (F.pad(x.transpose(0, 1), (0, note.padding)) for x in (query[0], torch.cat((key[0], value[0]))))
    cache = cast(PagedCache, step.states[0])
    cache.write(layer.layer, step.slot_mapping, kv.contiguous())
    out = cast(AttentionPlan, step.prepared).run(q, layer, cache)
    return out.view(1, tokens, heads, -1)[..., :head_dim], None


def _probe(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    **others: object,
) -> tuple[Tensor, None]:
    """Writes the call down; whatever takes part in scores and is not known here is strange."""
    note: Note = getattr(module, _NOTE)
    harmless = ("position_ids", "cache_position")
    strange = [name for name, value in others.items() if isinstance(value, Tensor) and name not in harmless]
    if is_causal is False:
        strange.append("is_causal=False")
    if isinstance(attention_mask, Tensor):
        strange.append("a mask of its own")
    head_dim = query.shape[-1]
    note.calls.append(
        Call(
            layer=int(module.layer_idx),  # type: ignore[arg-type]
            shape=(query.shape[1], key.shape[1], head_dim, value.shape[-1]),
            scale=head_dim**-0.5 if scaling is None else float(scaling),
            window=sliding_window or None,
            softcap=softcap,
            mask=None if isinstance(attention_mask, Tensor) else attention_mask,
            strange=tuple(strange),
        )
    )
    return query.new_zeros(1, query.shape[2], query.shape[1], value.shape[-1]), None


def _mask_rule(*_: object, mask_function: MaskRule, **__: object) -> MaskRule:
    """In place of a mask, the rule it would be made by, which tells more than the mask of a few tokens."""
    return mask_function
