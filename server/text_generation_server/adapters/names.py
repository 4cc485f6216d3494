"""Which of the loaded adapters a request means. Knows no tensors."""

from dataclasses import dataclass

BASE = 0
"""The number of no adapter."""


@dataclass(frozen=True, slots=True)
class AdapterNames:
    """Names of the loaded adapters, which are numbered from 1 in this order. base: what the model itself is called.

    Where none are loaded every name means the model: clients send any as theirs, and there is nothing to confuse.
    """

    names: tuple[str, ...] = ()
    base: str = ""

    def number(self, asked: str | None) -> int | None:
        """The adapter's number, `BASE` for the model itself, None for a name that nothing here has."""
        if not self.names or asked is None or asked == self.base:
            return BASE
        return self.names.index(asked) + 1 if asked in self.names else None


NO_ADAPTERS = AdapterNames()
"""Of a shard that has loaded none."""
