"""Keeps choices in a file that processes share. Knows not how they were made; whatever is unreadable is not there.

The file: {machine: {case: {"kernel": …, "block_n": …, …}}}, written whole and renamed into place.
"""

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from text_generation_server.kernels.matmul.config import KernelConfig, KernelKind


class PickFile:
    """The choices of one machine, by names of cases that the caller makes."""

    def __init__(self, path: Path, machine: str) -> None:
        self._path = path
        self._machine = machine

    @contextmanager
    def held(self) -> Iterator[None]:
        """Alone with the file: others that ask wait, and then find what this process has kept."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_name(f".{self._path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def read(self) -> dict[str, KernelConfig]:
        """All choices that can be understood."""
        kept = self._read_all().get(self._machine)
        items = kept.items() if isinstance(kept, dict) else ()
        return {case: choice for case, value in items if (choice := _choice(value)) is not None}

    def add(self, choices: Mapping[str, KernelConfig]) -> None:
        """Keep these too, and all that is there of this machine and others."""
        everything = self._read_all()
        kept = everything.get(self._machine)
        new = {case: asdict(choice) | {"kernel": choice.kernel.value} for case, choice in choices.items()}
        everything[self._machine] = (kept if isinstance(kept, dict) else {}) | new
        handle, draft = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
        try:
            with os.fdopen(handle, "w") as file:
                json.dump(everything, file, indent=1, sort_keys=True)
            os.replace(draft, self._path)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise

    def _read_all(self) -> dict[str, Any]:
        try:
            found = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _choice(value: Any) -> KernelConfig | None:
    try:
        return KernelConfig(**value | {"kernel": KernelKind(value["kernel"])})
    except (KeyError, TypeError, ValueError):
        return None
