"""Environment variables: typed reading of those that are handed in, and the few that libraries must find set.

Knows not which there are; `settings.py` does.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from text_generation_server.errors import InvalidSettings

TRUE = ("1", "true", "yes", "on")
FALSE = ("0", "false", "no", "off")


class Environment:
    """Variables by name. One that is set to nothing counts as unset."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._values = {name: value.strip() for name, value in variables.items() if value.strip()}

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, *names: str) -> str | None:
        """The first of these that is set."""
        return next((self._values[name] for name in names if name in self._values), None)

    def required(self, name: str, why: str) -> str:
        """Raises InvalidSettings with `why` if the variable is unset."""
        value = self.text(name)
        if value is None:
            raise InvalidSettings(f"the environment variable {name} is not set; {why}")
        return value

    def path(self, *names: str) -> Path | None:
        """The first of these that is set, `~` expanded."""
        value = self.text(*names)
        return None if value is None else Path(value).expanduser()

    def flag(self, name: str, default: bool) -> bool:
        """Raises InvalidSettings if the value says neither yes nor no."""
        value = self._values.get(name, str(default)).lower()
        if value not in TRUE + FALSE:
            raise InvalidSettings(f"{name} is {value!r}, expected one of {', '.join(TRUE + FALSE)}")
        return value in TRUE

    def integer(self, name: str, at_least: int) -> int | None:
        """Raises InvalidSettings if the value is no whole number or too small."""
        value = self._values.get(name)
        if value is None:
            return None
        if not value.isdecimal() or int(value) < at_least:
            raise InvalidSettings(f"{name} is {value!r}, expected a whole number of at least {at_least}")
        return int(value)

    def number(self, name: str, above: float, up_to: float = float("inf")) -> float | None:
        """Raises InvalidSettings unless `above` < value <= `up_to`."""
        value = self._values.get(name)
        if value is None:
            return None
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not above < number <= up_to:
            raise InvalidSettings(f"{name} is {value!r}, expected a number above {above:g} and up to {up_to:g}")
        return number

    def choice(self, name: str, choices: tuple[str, ...]) -> str | None:
        """Raises InvalidSettings if the value is none of `choices`."""
        value = self._values.get(name)
        if value is not None and value not in choices:
            raise InvalidSettings(f"{name} is {value!r}, expected one of {', '.join(choices)}")
        return value


def set_cuda_architectures(architectures: str) -> None:
    """Tell FlashInfer, before it is imported, what to compile for: such as `9.0a`, several apart by spaces.

    Raises InvalidSettings.
    """
    if not re.fullmatch(r"\d+\.\d+[a-z]?( \d+\.\d+[a-z]?)*", architectures):
        raise InvalidSettings(f"--arch is {architectures!r}, expected architectures such as 9.0a, apart by spaces")
    os.environ["FLASHINFER_CUDA_ARCH_LIST"] = architectures


@contextmanager
def library_folder(folder: str) -> Iterator[None]:
    """Let linkers find libraries in a folder too, after those that commands name."""
    before = os.environ.get("LIBRARY_PATH")
    os.environ["LIBRARY_PATH"] = folder if before is None else f"{before}:{folder}"
    try:
        yield
    finally:
        del os.environ["LIBRARY_PATH"]
        if before is not None:
            os.environ["LIBRARY_PATH"] = before
