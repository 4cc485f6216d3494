"""Python inside a router of another maker: the packages that it is offered, and what to do when it cannot import them.

Routers of text-generation-inference from 2.3 on let transformers load the tokenizer. Starts nothing.
"""

import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib import util
from os import pathsep
from pathlib import Path
from typing import Self

_PACKAGE = "transformers"
_OURS = f"{sys.version_info.major}.{sys.version_info.minor}"
_LIBRARY = re.compile(rb"libpython(\d\.\d+)")
_FAILURE = re.compile(r"ModuleNotFoundError|ImportError|No module named|Failed to import python")


@dataclass(frozen=True, slots=True)
class EmbeddedPython:
    """version: the Python that the program is linked with, if it says. offered: our folder of packages, if it fits."""

    version: str | None
    offered: Path | None

    @classmethod
    def of(cls, program: str) -> Self:
        """What is known of a program, which may also have no Python inside."""
        version = _linked_version(Path(program))
        return cls(version, _packages() if version in (None, _OURS) else None)

    def path(self, given: str | None) -> str | None:
        """PYTHONPATH for the program: what is given comes first."""
        ours = [str(self.offered)] if self.offered else []
        return pathsep.join([*([given] if given else []), *ours]) or None

    def advice(self, lines: Iterable[str]) -> str | None:
        """A sentence on what to do, if these lines of the program tell that an import failed."""
        if not any(_FAILURE.search(line) for line in lines):
            return None
        own = f"Python {self.version}" if self.version else "that Python"
        tried = f"it was offered {self.offered}" if self.offered else f"this installation's are for Python {_OURS}"
        return (
            f"The router runs Python inside, which could not import what it needs: install {_PACKAGE} for {own} "
            f"and name the folder in PYTHONPATH ({tried})"
        )


def _linked_version(program: Path) -> str | None:
    with suppress(OSError):  # it may be run and not be read
        if found := _LIBRARY.search(program.read_bytes()):
            return found[1].decode()
    return None


def _packages() -> Path | None:
    spec = util.find_spec(_PACKAGE)
    return Path(spec.origin).parents[1] if spec and spec.origin else None
