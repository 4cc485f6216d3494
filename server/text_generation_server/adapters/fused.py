"""Pairs of a parameter that has the weights of all experts of a layer, as PEFT's `target_parameters` makes them.

Such a parameter is [experts, outputs, inputs], and its two matrices have a pair for each expert: lora_A
[experts · r, inputs], an expert's rows together, and lora_B [outputs, r · experts], an expert's columns apart. Some
versions of PEFT took outputs for inputs. Names in the file do not tell which parameter of a module a pair is to: shapes
do.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from text_generation_server.adapters.pairs import Adapter, LoraPair
from text_generation_server.adapters.targets import Targets
from text_generation_server.errors import UnsupportedModel


def split_fused(
    adapter: Adapter, module: str, parameters: Sequence[str], targets: Targets, down: Tensor, up: Tensor
) -> dict[str, LoraPair]:
    """The pairs of each expert's linears. module: by the file's name. parameters: those of the module, by their names.

    Raises UnsupportedModel if the shapes fit none of the parameters.
    """
    for swapped in (False, True):
        for parameter in parameters:
            key = f"{module}.{parameter.rpartition('.')[2]}"
            experts, rank = targets.fused[parameter], adapter.config.rank_of(key)
            outputs = sum(targets.shapes[name][0] for name in experts[0])
            inputs, pairs = targets.shapes[experts[0][0]][1], rank * len(experts)
            first, last = (outputs, inputs) if swapped else (inputs, outputs)
            if (tuple(down.shape), tuple(up.shape)) == ((pairs, first), (last, pairs)):
                whole = _of_experts(down, up, len(experts), adapter.config.scale_of(key), swapped)
                return _of_linears(whole, experts, targets.shapes)
    raise UnsupportedModel(
        f"{adapter.directory}: lora_A and lora_B of {module} have shapes {list(down.shape)} and {list(up.shape)}, "
        f"which fit none of {', '.join(parameters)} with the ranks of {adapter.config.where}"
    )


def _of_experts(down: Tensor, up: Tensor, experts: int, scale: float, swapped: bool) -> list[LoraPair]:
    """Each expert's pair to all its outputs."""
    firsts, lasts = down.view(experts, -1, down.shape[1]), up.view(up.shape[0], -1, experts).unbind(2)
    both = zip(firsts, lasts, strict=True)
    return [LoraPair(last.T, first.T, scale) if swapped else LoraPair(first, last, scale) for first, last in both]


def _of_linears(
    pairs: Sequence[LoraPair], experts: Sequence[Sequence[str]], shapes: Mapping[str, tuple[int, int]]
) -> dict[str, LoraPair]:
    """The same of the linears whose outputs lie one above the other."""
    found: dict[str, LoraPair] = {}
    for pair, names in zip(pairs, experts, strict=True):
        ups = torch.split(pair.up, [shapes[name][0] for name in names])
        found |= {name: LoraPair(pair.down, up, pair.scale) for name, up in zip(names, ups, strict=True)}
    return found
