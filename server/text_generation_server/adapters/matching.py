"""Finds the linears of a model that an adapter's pairs change. Knows names and shapes, no numbers.

An adapter must change all that it says and nothing that it does not: what would be left out is refused by name.
"""

import re
from collections.abc import Collection
from typing import TypeVar

from text_generation_server.adapters.fused import split_fused
from text_generation_server.adapters.pairs import Adapter, LoraPair, pair_of
from text_generation_server.adapters.targets import Shape, Targets
from text_generation_server.errors import UnsupportedModel

T = TypeVar("T")


def match(adapter: Adapter, targets: Targets) -> dict[str, LoraPair]:
    """The adapter's pairs by the names of the model's linears.

    An adapter that was trained on the model without its head lacks the first part of every name.

    Raises:
        UnsupportedModel: it does not fit this model, or its two files contradict each other; the text says where.
    """
    full = _with_short({name: name for name in targets.shapes} | dict(targets.others))
    fused: dict[str, list[str]] = {}
    for parameter in targets.fused:
        fused.setdefault(parameter.rpartition(".")[0], []).append(parameter)
    fused = _with_short(fused)
    matched: dict[str, LoraPair] = {}
    for stored, (down, up) in adapter.halves.items():
        module = targets.own_name(stored.replace(".base_layer", ""))
        if module in fused:
            found = split_fused(adapter, module, fused[module], targets, down, up)
        elif module in full:
            found = {full[module]: pair_of(adapter, stored, _key(adapter, stored, module, targets))}
            _check_shape(adapter, full[module], found[full[module]], targets.shapes[full[module]])
        else:
            raise UnsupportedModel(_unknown(adapter, module, targets.shapes))
        matched |= found
    _check_complete(adapter, targets, matched)
    return matched


def _with_short(names: dict[str, T]) -> dict[str, T]:
    return {short: value for name, value in names.items() if (short := name.partition(".")[2])} | names


def _key(adapter: Adapter, stored: str, module: str, targets: Targets) -> str:
    """What the configuration calls a module: by itself, or by its parameter where that is what PEFT finds of it."""
    for name in (stored.replace(".base_layer", ""), module):
        if adapter.config.targets(name):
            return name
    if module in targets.others and adapter.config.targets_parameter(f"{module}.weight"):
        return f"{module}.weight"
    raise UnsupportedModel(
        f"{adapter.directory} holds matrices for {module}, which target_modules of {adapter.config.where} leave out"
    )


def _check_complete(adapter: Adapter, targets: Targets, matched: Collection[str]) -> None:
    """Experts and their routers are modules in some versions of transformers only: all of a kind, or none."""
    loose, kinds = targets.experts | {*targets.others.values()}, {_kind(name) for name in matched}
    names = [name for name in targets.shapes if adapter.config.targets(name) and name not in matched]
    missing = [(name, "target_modules") for name in names if name not in loose or _kind(name) in kinds]
    for parameter, experts in targets.fused.items():
        if adapter.config.targets_parameter(parameter) and experts[0][0] not in matched:
            missing.append((parameter, "target_parameters"))
    if missing:
        name, key = missing[0]
        raise UnsupportedModel(
            f"{adapter.directory} holds no matrices for {name}, which {key} of {adapter.config.where} name"
        )


def _kind(name: str) -> str:
    return re.sub(r"\d+", "", name)


def _unknown(adapter: Adapter, module: str, names: Collection[str]) -> str:
    """The sentence for a module that is no linear of the model, with those beside it."""
    parent, _, own = module.rpartition(".")
    beside = sorted({name.rpartition(".")[2] for name in names if name.rpartition(".")[0].endswith(parent)})
    hint = f" (those are {', '.join(beside)})" if beside and parent else ""
    return (
        f"{adapter.directory} changes {own} of {parent or 'the model'}, which is none of the linears that adapters can "
        f"change in this model{hint}: embeddings and output heads are not, nor are parts of fused linears, nor experts "
        "that a checkpoint has in one tensor"
    )


def _check_shape(adapter: Adapter, name: str, pair: LoraPair, shape: Shape) -> None:
    if (pair.up.shape[0], pair.down.shape[1]) != shape:
        raise UnsupportedModel(
            f"{adapter.directory}: lora_A and lora_B of {name} have shapes {list(pair.down.shape)} and "
            f"{list(pair.up.shape)}, which do not fit the model's {list(shape)}: it is an adapter to another model"
        )
