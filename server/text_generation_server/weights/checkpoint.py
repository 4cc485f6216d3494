"""A model directory's tensors under the names a spec uses, and the proof that none was forgotten. Knows no spec."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Protocol

from torch import Tensor

from text_generation_server.errors import ModelNotFound, UnsupportedModel
from text_generation_server.weights.tensorfile import StoredTensor, TensorFile

Progress = Callable[[int, int], None]
"""Bytes of the checkpoint dealt with so far, and of the whole checkpoint. A rank reads its part of each tensor."""

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

_BUFFERS = re.compile(r"(.*\.)?(rotary_(pos_)?emb\.inv_freq|masked_bias|position_ids)|decoder\.version")
_CAUSAL_MASK = re.compile(r"(.*\.)?(attn|attention)\.bias")
"""Tensors that old checkpoints carry though they follow from the config; the mask only counts with four dimensions."""


class Checkpoint(Protocol):
    """A model's tensors by name. Layers are read by several threads."""

    def has(self, name: str) -> bool:
        """Whether there is such a tensor, for those that some checkpoints of a family lack."""

    def view(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor, not to be written to: cut first, then copy. Raises UnsupportedModel if it cannot be had."""

    def leave(self, name: str) -> None:
        """Accept that a tensor is not used, if it is there at all."""

    def check_consumed(self) -> None:
        """To be called when all is read. Raises UnsupportedModel if a tensor was never asked for."""


class SavedCheckpoint:
    """All tensors of a model directory.

    family_prefix: a prefix of the names asked for that some checkpoints of the family leave out.

    Raises:
        ModelNotFound: the directory has no safetensors files, or an indexed one is missing.
        UnsupportedModel: a file is broken.
    """

    def __init__(
        self, directory: Path, family_prefix: str = "", progress: Progress = lambda _done, _total: None
    ) -> None:
        self._directory = directory
        self._prefix = family_prefix
        self._progress = progress
        files = [TensorFile(path) for path in _files(directory)]
        self._homes = {name: file for file in files for name in file.tensors}
        self._unused = {name for name, file in self._homes.items() if not _is_buffer(name, file.tensors[name])}
        self._total = sum(self._size(name) for name in self._unused)
        self._done = 0
        self._lock = Lock()

    def has(self, name: str) -> bool:
        """Whether the tensor is there, under this name or without the family's prefix."""
        return self._find(name) is not None

    def view(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor as a view of the mapped file: cut first, then copy.

        Raises:
            UnsupportedModel: it is not there, or its shape is not the one that config.json implies.
        """
        found = self._find(name)
        if found is None:
            tried = " and ".join(self._candidates(name))
            raise UnsupportedModel(f"{self._directory} has no tensor {tried}, which config.json asks for")
        stored = self._homes[found].tensors[found]
        if stored.shape != shape:
            message = f"{self._directory}: {found} has shape {list(stored.shape)}, config.json implies {list(shape)}"
            raise UnsupportedModel(message)
        view = self._homes[found].view(found)
        self._use(found)
        return view

    def leave(self, name: str) -> None:
        """Accept that a tensor is not used, if it is there at all."""
        found = self._find(name)
        if found is not None:
            self._use(found)

    def check_consumed(self) -> None:
        """Raise UnsupportedModel if a tensor was never asked for: the commonest sign of a wrong spec."""
        if self._unused:
            some = ", ".join(sorted(self._unused)[:4])
            raise UnsupportedModel(
                f"{self._directory} has {len(self._unused)} tensors that its config.json does not account for "
                f"({some}): the architecture has parts that are not supported, or config.json is another model's"
            )

    def _candidates(self, name: str) -> list[str]:
        short = name.removeprefix(self._prefix)
        return [name] if short == name else [name, short]

    def _find(self, name: str) -> str | None:
        return next((candidate for candidate in self._candidates(name) if candidate in self._homes), None)

    def _use(self, name: str) -> None:
        with self._lock:
            if name in self._unused:
                self._unused.remove(name)
                self._done += self._size(name)
                self._progress(self._done, self._total)

    def _size(self, name: str) -> int:
        return self._homes[name].tensors[name].nbytes


def _files(directory: Path) -> list[Path]:
    index = directory / INDEX
    if index.is_file():
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise UnsupportedModel(f"{index} is no index of safetensors files: {error!r}") from error
        return [directory / name for name in sorted(names)]
    if (directory / SINGLE).is_file():
        return [directory / SINGLE]
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise ModelNotFound(_why_no_files(directory))
    return files


def _why_no_files(directory: Path) -> str:
    pickled = sorted(path.name for path in [*directory.glob("*.bin"), *directory.glob("*.pt")])
    if pickled:
        return (
            f"{directory} has only pickled weights ({pickled[0]}), which are not loaded: convert them once with "
            f"`text-generation-server download-weights {directory}`"
        )
    return f"{directory} has no *.safetensors files: expected a model directory with weights"


def _is_buffer(name: str, stored: StoredTensor) -> bool:
    return bool(_BUFFERS.fullmatch(name) or (_CAUSAL_MASK.fullmatch(name) and len(stored.shape) == 4))
