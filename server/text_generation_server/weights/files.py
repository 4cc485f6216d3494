"""Which files of a directory are the model's weights. Knows names only, never what is in a file but an index.

The rule, wherever it is asked: those that the index lists, if they are all there; else the one file; else none, and
the reason says what is missing. Whatever else lies there (optimizer states, adapters, the same in another naming) is
nobody's weights.
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from text_generation_server.errors import ModelNotFound, StartError, UnsupportedModel
from text_generation_server.modelfiles import read_object

_ADAPTER = re.compile(r"adapter_config\.json|adapter_model\..*")
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_LOOKS_LIKE_WEIGHTS = re.compile(r".*\.(safetensors|bin|pt|pth|gguf|npz)")


class AdapterNotModel(UnsupportedModel):
    """What was named as a model is an adapter to one."""


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How transformers calls the files of one format."""

    stem: str
    extension: str

    @property
    def single(self) -> str:
        """The one file."""
        return self.stem + self.extension

    @property
    def index(self) -> str:
        """The list of files, where there are several."""
        return f"{self.single}.index.json"


SAFETENSORS = WeightFormat("model", ".safetensors")
PICKLED = WeightFormat("pytorch_model", ".bin")


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of a model: `entry` is the file that stands for all, the index or the only one."""

    entry: str
    names: tuple[str, ...]


def weight_files(directory: Path, kind: WeightFormat = SAFETENSORS) -> Weights:
    """The weights in a directory; see `choose_weights`. UnsupportedModel for an index that is none."""
    names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    return choose_weights(str(directory), names, listed_files(directory / kind.index), kind)


def listed_files(index: Path) -> frozenset[str]:
    """The files that an index names, none where there is no index. UnsupportedModel for a file that is none."""
    if not index.is_file():
        return frozenset()
    content = read_object(index)
    homes = content.section("weight_map")
    if not homes.values:
        raise content.refusal("weight_map", "a file for each tensor")
    return frozenset(homes.get(name, str) or "" for name in homes.values)


def choose_weights(place: str, names: Collection[str], listed: Collection[str], kind: WeightFormat) -> Weights:
    """The weights among the files of a directory or repository.

    listed: what the index names, if there is one.

    Raises:
        ModelNotFound: they are not, or not all, there.
        UnsupportedModel: it is an adapter to a model.
    """
    missing = sorted(set(listed) - set(names))
    if listed and not missing:
        return Weights(kind.index, tuple(sorted(listed)))
    if kind.single in names:
        return Weights(kind.single, (kind.single,))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelNotFound(f"{place} has no {missing[0]}{more}, which {kind.index} lists: download it again")
    refuse_adapter(place, names)
    others = sorted(name for name in names if _LOOKS_LIKE_WEIGHTS.fullmatch(name))
    only = f"only {', '.join(others[:8])}" if others else "no weights"
    raise ModelNotFound(f"{place} has neither {kind.single} nor {kind.index}, {only}{_advice(place, names)}")


def choose_format(
    place: str, names: Collection[str], listed: Callable[[str], Collection[str]], kinds: Sequence[WeightFormat]
) -> tuple[WeightFormat, Weights]:
    """The first of several formats whose weights are there; `listed` says what the index of a name lists.

    Raises as `choose_weights` does, for the format that is there in part, else for the first.
    """
    refusals: dict[WeightFormat, StartError] = {}
    for kind in kinds:
        try:
            return kind, choose_weights(place, names, listed(kind.index), kind)
        except (ModelNotFound, UnsupportedModel) as error:
            refusals[kind] = error
    raise next((error for kind, error in refusals.items() if kind.index in names), refusals[kinds[0]])


def refuse_adapter(place: str, names: Collection[str]) -> None:
    """Raise AdapterNotModel where files of a LoRA adapter are among `names`."""
    found = next((name for name in sorted(names) if _ADAPTER.fullmatch(name)), None)
    if found is not None:
        raise AdapterNotModel(f"{place} is a LoRA adapter (it has {found}): name its base model instead")


def latest_checkpoint(names: Collection[str]) -> str | None:
    """The last of the folders in which a trainer saved the model as it was after so many steps."""
    found = [name for name in names if _CHECKPOINT.fullmatch(name)]
    return max(found, key=lambda name: int(name.rpartition("-")[2]), default=None)


def _advice(place: str, names: Collection[str]) -> str:
    if PICKLED.single in names or PICKLED.index in names:
        return f": convert them once with `text-generation-server download-weights {place}`"
    checkpoint = latest_checkpoint(names)
    return (
        f": name a checkpoint in it, such as {place}/{checkpoint}"
        if checkpoint
        else ": name a directory with a whole model"
    )
