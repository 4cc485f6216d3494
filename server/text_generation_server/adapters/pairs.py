"""Reads an adapter's tensors: a pair of matrices for each module that it changes. Knows no model."""

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
    """What one directory holds. pairs: by the name that its module has in the base model."""

    directory: Path
    config: PeftConfig
    pairs: dict[str, LoraPair]


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
    return Adapter(directory, config, {module: _pair(path, module, config, found) for module, found in halves.items()})


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
                "….lora_B.weight of linears, no embeddings, biases, magnitudes (DoRA) or whole modules"
            )
        yield found["module"], found["side"], tensor


def _pair(path: Path, module: str, config: PeftConfig, halves: dict[str, Tensor]) -> LoraPair:
    if len(halves) < 2:
        (only,) = halves
        raise UnsupportedModel(f"{path} has lora_{only} of {module} alone: save the adapter again")
    down, up, rank = halves["A"], halves["B"], config.rank_of(module)
    if down.dim() != 2 or up.dim() != 2 or down.shape[0] != rank or up.shape[1] != rank:
        raise UnsupportedModel(
            f"{path}: lora_A and lora_B of {module} have shapes {list(down.shape)} and {list(up.shape)}, which are not "
            f"of rank {rank}, as {config.where} says"
        )
    return LoraPair(down, up, config.scale_of(module))
