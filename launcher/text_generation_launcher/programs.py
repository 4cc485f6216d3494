"""Finds the executables to start. Knows nothing of their options."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from text_generation_launcher.errors import LaunchError

_SERVER = "text-generation-server"


@dataclass(frozen=True, slots=True)
class Programs:
    """How each program is started, as the first words of a command; `python` runs the tether."""

    python: str
    server: tuple[str, ...]
    router: tuple[str, ...]


def find_programs(python: str, search_path: str) -> Programs:
    """The server installed beside this Python, else on the search path, else as a module; the embedded router."""
    installed = shutil.which(_SERVER, path=str(Path(python).parent)) or shutil.which(_SERVER, path=search_path)
    server = (installed,) if installed else (python, "-m", "text_generation_server")
    return Programs(python, server, (python, "-m", "text_generation_router"))


def find_router(name: str, search_path: str) -> str:
    """The absolute path of another router, given by path or name. Raises LaunchError if it cannot be run."""
    found = shutil.which(name, path=search_path)
    if found is None:
        raise LaunchError(
            f"--router {name}: no such program; give the path or name of a text-generation-router, or `embedded`"
        )
    return str(Path(found).absolute())
