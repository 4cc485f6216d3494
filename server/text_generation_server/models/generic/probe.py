"""Finds out how a transformers model attends, and refuses what our attention would answer wrongly. Knows no weights."""

from collections.abc import Sequence
from typing import Any

import torch

from text_generation_server.errors import UnsupportedModel
from text_generation_server.models.generic.bridge import PROBING, Call, MaskRule, Note

PROBE_TOKENS = 4


def attention_calls(model: Any, note: Note, device: torch.device, layers: int) -> list[Call]:
    """One call for each layer, in order.

    Raises:
        UnsupportedModel: attention is not called once a layer, or differs from what can be served; says how.
    """
    model.set_attn_implementation(PROBING)
    ids = torch.arange(1, PROBE_TOKENS + 1, device=device)[None]
    note.calls.clear()
    try:
        with torch.inference_mode():
            model(input_ids=ids, position_ids=ids - 1, use_cache=False)
    except Exception as error:  # code that we do not know may raise anything
        raise refusal(model, f"its code does not take another attention ({type(error).__name__}: {error})") from error
    calls = list(note.calls)
    if [call.layer for call in calls] != list(range(layers)):
        said = f"attention is called for layers {[call.layer for call in calls]}, of {layers}"
        raise refusal(model, f"{said}: it has layers of other kinds, or attention that cannot be replaced")
    for call in calls:
        _check(model, call)
    if len({call.shape for call in calls}) > 1:
        raise refusal(model, "heads differ between layers")
    return calls


def _check(model: Any, call: Call) -> None:
    if call.strange:
        raise refusal(model, f"layer {call.layer}'s attention takes {', '.join(call.strange)}")
    heads, kv_heads, key_dim, value_dim = call.shape
    if key_dim != value_dim:
        raise refusal(model, f"keys have {key_dim} numbers a head and values {value_dim}")
    if heads % kv_heads:
        raise refusal(model, f"{heads} query heads do not share {kv_heads} key/value heads evenly")
    if call.mask is not None and not _is_window(call.mask, call.window):
        raise refusal(model, f"layer {call.layer}'s mask is neither causal nor the sliding window it declares")


def _is_window(rule: MaskRule, window: int | None) -> bool:
    """Whether a rule is causal with this window, at positions where others would differ."""
    size = window or 1
    try:
        return all(
            bool(_visible(rule, query, key)) == (key <= query and (window is None or key > query - window))
            for query in (0, 1, 3, size - 1, size, size + 5, 10_007, 1_000_003)
            for key in _near((0, 1, query - size, query, query // 2))
        )
    except IndexError:  # it looks the tokens of the step up
        return False


def _near(places: Sequence[int]) -> list[int]:
    return sorted({max(place + offset, 0) for place in places for offset in (-1, 0, 1)})


def _visible(rule: MaskRule, query: int, key: int) -> torch.Tensor:
    batch = head = torch.tensor(0)
    return rule(batch, head, torch.tensor(query), torch.tensor(key))


def refusal(model: Any, why: str) -> UnsupportedModel:
    """The error that says why a model cannot take this path."""
    return UnsupportedModel(
        f"model_type {model.config.model_type} has no architecture of its own here and cannot be served through "
        f"transformers' code: {why}"
    )
