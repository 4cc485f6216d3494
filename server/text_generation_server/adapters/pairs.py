"""Reads an adapter's tensors: two matrices for each module that it changes. Knows no model."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from text_generation_server.adapters.peft_config import PeftConfig, read_peft_config
from text_generation_server.errors import ModelNotFound, UnsupportedModel
from text_generation_server.weights.convert import load_pickle
from text_generation_server.weights.tensorfile import TensorFile

WEIGHTS = "adapter_model.safetensors"
PICKLED_WEIGHTS = "adapter_model.bin"

_HALF = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")


@dataclass(frozen=True, slots=True)
class LoraPair:
    """A change `scale · up · down` of a module's weights. down: [r, in]. up: [out, r]. Views of a mapped file."""

    down: Tensor
    up: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """r."""
        return self.down.shape[0]


@dataclass(frozen=True, slots=True)
class Adapter:
    """What one directory holds. halves: lora_A and lora_B, by the name that their module has in the base model."""

    directory: Path
    config: PeftConfig
    halves: dict[str, tuple[Tensor, Tensor]]


def read_adapter(directory: Path) -> Adapter:
    """The adapter in a directory, as PEFT's `save_pretrained` leaves it.

    Raises:
        ModelNotFound: a file is missing.
        UnsupportedModel: it is broken, or changes more than linears; the text says what.
    """
    config = read_peft_config(directory)
    path = next((found for name in (WEIGHTS, PICKLED_WEIGHTS) if (found := directory / name).exists()), None)
    if path is None:
        raise ModelNotFound(f"there is no {directory / WEIGHTS}: name a directory that PEFT's save_pretrained made")
    halves: dict[str, dict[str, Tensor]] = {}
    for module, side, half in _halves(_tensors(path), path):
        halves.setdefault(module, {})[side] = half
    if not halves:
        raise UnsupportedModel(f"{path} holds no tensors: save the adapter again")
    return Adapter(directory, config, {module: _both(path, module, found) for module, found in halves.items()})


def pair_of(adapter: Adapter, module: str, key: str) -> LoraPair:
    """A module's pair. key: what patterns of ranks are compared with. Raises UnsupportedModel for another rank."""
    (down, up), rank = adapter.halves[module], adapter.config.rank_of(key)
    if down.shape[0] != rank or up.shape[1] != rank:
        raise UnsupportedModel(
            f"{adapter.directory}: lora_A and lora_B of {module} have shapes {list(down.shape)} and {list(up.shape)}, "
            f"which are not of rank {rank}, as {adapter.config.where} says"
        )
    return LoraPair(down, up, adapter.config.scale_of(key))


def _tensors(path: Path) -> Mapping[str, Tensor]:
    """By name. Of a pickle nothing is taken but tensors."""
    if path.name == WEIGHTS:
        file = TensorFile(path)
        return {name: file.view(name) for name in file.tensors}
    return load_pickle(path)


def _halves(tensors: Mapping[str, Tensor], path: Path) -> Iterator[tuple[str, str, Tensor]]:
    for name, tensor in tensors.items():
        found = _HALF.fullmatch(name)
        if found is None:
            raise UnsupportedModel(
                f"{path} holds {name}, which is not served: expected base_model.model.….lora_A.weight and "
                "….lora_B.weight of linears, no embeddings, output heads, biases, magnitudes (DoRA) "
                "or whole modules"
            )
        yield found["module"], found["side"], tensor


def _both(path: Path, module: str, halves: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    if len(halves) < 2:
        (only,) = halves
        raise UnsupportedModel(f"{path} has lora_{only} of {module} alone: save the adapter again")
    down, up = halves["A"], halves["B"]
    if down.dim() != 2 or up.dim() != 2:
        raise UnsupportedModel(
            f"{path}: lora_A and lora_B of {module} have shapes {list(down.shape)} and {list(up.shape)}, expected two "
            "matrices: convolutions are not served"
        )
    return down, up
