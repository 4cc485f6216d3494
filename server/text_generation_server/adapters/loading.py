"""Puts adapters beside the linears of a loaded model: all of them, before the first step."""

from collections.abc import Sequence

import torch

from text_generation_server.adapters.bank import LoraBank, parts_of
from text_generation_server.adapters.matching import match, shapes_of
from text_generation_server.adapters.pairs import Adapter
from text_generation_server.layers.linear import ParallelLinear


def add_adapters(
    linears: Sequence[ParallelLinear], adapters: Sequence[Adapter], dtype: torch.dtype, device: torch.device
) -> int:
    """Number the adapters from 1 and let the linears add what they change; returns the bytes that it takes here.

    linears: a rank's. Those that no adapter changes stay as they are.

    Raises:
        UnsupportedModel: an adapter does not fit the model.
    """
    shapes = shapes_of(linears)
    matched = [match(adapter, shapes) for adapter in adapters]
    held = 0
    for linear in linears:
        parts = parts_of(linear)
        ranks = [pairs[part.name].rank for pairs in matched for part in parts if part.name in pairs]
        if not ranks:
            continue
        bank = LoraBank(parts, len(adapters), max(ranks), dtype, device)
        for number, pairs in enumerate(matched, start=1):
            bank.put(number, pairs)
        linear.addend = bank
        held += bank.nbytes
    return held
