"""A model directory's tensors under the names a spec uses, and the proof that none was forgotten. Knows no spec."""

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Protocol

import torch
from torch import Tensor

from text_generation_server.errors import UnsupportedModel
from text_generation_server.weights.derived import is_derived
from text_generation_server.weights.files import weight_files
from text_generation_server.weights.tensorfile import TensorFile

Progress = Callable[[int, int], None]
"""Bytes of the checkpoint dealt with so far, and of the whole checkpoint. A rank reads its part of each tensor."""


class Checkpoint(Protocol):
    """A model's tensors by name. Layers are read by several threads."""

    def has(self, name: str) -> bool:
        """Whether there is such a tensor, for those that some checkpoints of a family lack."""

    def view(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: torch.dtype | None = None,
        others: Sequence[tuple[int, ...]] = (),
    ) -> Tensor:
        """The tensor, not to be written to: cut first, then copy. Raises UnsupportedModel if it cannot be had.

        dtype: that it has to have, None for any floating type. others: shapes that it may have instead.
        """

    def text(self, name: str) -> str:
        """What a tensor of bytes [n] says in UTF-8. Raises UnsupportedModel if it cannot be had."""

    def leave(self, name: str) -> None:
        """Accept that a tensor is not used, if it is there at all."""

    def leave_zeros(self, name: str) -> None:
        """Accept that a tensor is not used, if it is there and all of it is zero."""

    def check_consumed(self) -> None:
        """To be called when all is read. Raises UnsupportedModel if a tensor was never asked for."""


class SavedCheckpoint:
    """All tensors of a model directory.

    family_prefix: a prefix of the names asked for that some checkpoints of the family leave out.
    aliases: other beginnings of names, and what some checkpoints have in their place.
    quantised: whether its config.json says so.

    Raises:
        ModelNotFound: the directory does not have the model's weights, or not all.
        UnsupportedModel: a file is broken, or holds numbers in a form that is not read.
    """

    def __init__(
        self,
        directory: Path,
        family_prefix: str = "",
        progress: Progress = lambda _done, _total: None,
        quantised: bool = False,
        aliases: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._directory = directory
        self._aliases = ((family_prefix, ""), *aliases) if family_prefix else tuple(aliases)
        self._progress = progress
        files = [TensorFile(directory / name, quantised) for name in weight_files(directory).names]
        self._homes = {name: file for file in files for name in file.tensors}
        self._unused = {name for name in self._homes if not self.is_derived(name)}
        self._total = sum(self._size(name) for name in self._unused)
        self._done = 0
        self._lock = Lock()

    def has(self, name: str) -> bool:
        """Whether the tensor is there, under this name or another that stands for it."""
        return self._find(name) is not None

    def view(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: torch.dtype | None = None,
        others: Sequence[tuple[int, ...]] = (),
    ) -> Tensor:
        """The tensor as a view of the mapped file: cut first, then copy.

        Raises:
            UnsupportedModel: it is not there, or its shape or its type is not the one that config.json implies.
        """
        found = self._found(name)
        stored = self._homes[found].tensors[found]
        if stored.shape != shape and stored.shape not in others:
            message = f"{self._directory}: {found} has shape {list(stored.shape)}, config.json implies {list(shape)}"
            raise UnsupportedModel(message)
        if dtype is not None and stored.dtype is not dtype:
            message = f"{self._directory}: {found} has elements of {stored.dtype}, config.json implies {dtype}"
            raise UnsupportedModel(message)
        view = self._homes[found].view(found)
        self._use(found)
        return view

    def text(self, name: str) -> str:
        """What a tensor of bytes says, see `Checkpoint`."""
        found = self._found(name)
        content = self._homes[found].view(found)
        self._use(found)
        try:
            return content.numpy().tobytes().decode()
        except (TypeError, UnicodeDecodeError) as error:
            raise UnsupportedModel(f"{self._directory}: {found} is no text ({error}): download it again") from error

    def leave(self, name: str) -> None:
        """Accept that a tensor is not used, if it is there at all."""
        found = self._find(name)
        if found is not None:
            self._use(found)

    def leave_zeros(self, name: str) -> None:
        """Accept that a tensor is not used, if it is there and all of it is zero."""
        found = self._find(name)
        if found is not None and not self._homes[found].view(found).any():
            self._use(found)

    def check_consumed(self) -> None:
        """Raise UnsupportedModel if a tensor was never asked for: the commonest sign of a wrong spec."""
        if self._unused:
            some = ", ".join(sorted(self._unused)[:4])
            raise UnsupportedModel(
                f"{self._directory} has {len(self._unused)} tensors that its config.json does not account for "
                f"({some}): the architecture has parts that are not supported, or config.json is another model's"
            )

    def is_derived(self, name: str) -> bool:
        """Whether there is a tensor of this name that need not be read: it follows from the config."""
        return name in self._homes and is_derived(name, len(self._homes[name].tensors[name].shape))

    def _candidates(self, name: str) -> list[str]:
        others = (other + name[len(ours) :] for ours, other in self._aliases if name.startswith(ours))
        return [name, *others]

    def _find(self, name: str) -> str | None:
        return next((candidate for candidate in self._candidates(name) if candidate in self._homes), None)

    def _found(self, name: str) -> str:
        found = self._find(name)
        if found is None:
            tried = " and ".join(self._candidates(name))
            raise UnsupportedModel(f"{self._directory} has no tensor {tried}, which config.json asks for")
        return found

    def _use(self, name: str) -> None:
        with self._lock:
            if name in self._unused:
                self._unused.remove(name)
                self._done += self._size(name)
                self._progress(self._done, self._total)

    def _size(self, name: str) -> int:
        return self._homes[name].tensors[name].nbytes
