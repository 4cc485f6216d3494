"""What the `model` of a request may be, and what it then means. Knows no API."""

from text_generation_router.backend import AdapterNames
from text_generation_router.errors import NoSuchModel

_ANY = ("tgi", "dummy")
"""What clients of text-generation-inference call a model that they have no name for."""


class ModelNames:
    """The model's name, and its adapters'. strict: others mean nothing, rather than the model."""

    def __init__(self, base: str, adapters: AdapterNames, strict: bool) -> None:
        self._base = base
        self._adapters = adapters
        self._strict = strict

    async def adapter(self, name: str | None) -> str | None:
        """The adapter that a name means, None for the model itself. Raises NoSuchModel.

        Where any name is taken, none is looked for on disk.
        """
        if name is None or name in self._adapters:
            return name
        if not self._strict or name == self._base or name in _ANY:
            return None
        if not await self._adapters.find(name):
            raise NoSuchModel(name)
        return name
