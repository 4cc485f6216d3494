"""Reads config.json with types. Knows the two spellings of null and absent, and no architecture.

Plain JSON on purpose: library classes rewrite fields as they load, and do not know the names of older remote code.
"""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Final

from text_generation_server.errors import ModelNotFound, UnsupportedModel
from text_generation_server.modelfiles import read_object
from text_generation_server.specs.activation import ACTIVATION_NAMES, Activation
from text_generation_server.specs.decoder import HeadSpec, HeadTie, PositionLimit


class Required(Enum):
    """The default of a key that has none."""

    REQUIRED = "required"


REQUIRED: Final = Required.REQUIRED

_INFINITY = {"__float__": "Infinity"}
"""As transformers 5 writes what JSON has no number for; before, files said `Infinity`."""

_LARGEST = 1 << 53
"""From here on whole numbers are not exact in the arithmetic they are used in."""


class ConfigDict:
    """The values of a config.json; `null` counts as absent everywhere.

    Getters take a key and its older spellings; the first one present counts. They raise UnsupportedModel, naming key
    and value, for a value of another type, and for a missing key without default.
    """

    def __init__(self, values: Mapping[str, Any], where: str = "config.json") -> None:
        self._values = values
        self._where = where
        self._read: set[str] = set()

    @classmethod
    def load(cls, path: Path) -> "ConfigDict":
        """Raises ModelNotFound if there is no such file, UnsupportedModel if it is not a JSON object."""
        try:
            return cls(read_object(path).values, str(path))
        except ModelNotFound as error:
            raise ModelNotFound(f"{error}: expected a model directory with config.json") from error

    def get(self, *keys: str) -> Any:
        """The raw value of the first of these keys that is present, None if none is."""
        self._read.update(keys)
        return next((self._values[key] for key in keys if self._values.get(key) is not None), None)

    def is_null(self, key: str) -> bool:
        """Whether the key is there with no value: for the rare one where that is not the same as no key."""
        self._read.add(key)
        return key in self._values and self._values[key] is None

    def integer(self, *keys: str, default: int | Required = REQUIRED, at_least: int = 1) -> int:
        """A whole number below 2^53."""
        value = self._value(keys, default)
        if isinstance(value, bool) or not isinstance(value, int) or not at_least <= value < _LARGEST:
            raise self.refusal(keys[0], value, f"a whole number of at least {at_least}, and below 2^53")
        return value

    def optional_number(self, *keys: str) -> float | None:
        """A number, or None where the key is absent."""
        return None if self.get(*keys) is None else self.number(*keys)

    def optional_integer(self, *keys: str) -> int | None:
        """A whole number, or None where the key is absent."""
        return None if self.get(*keys) is None else self.integer(*keys)

    def nullable_integer(self, key: str, default: int | None) -> int | None:
        """A whole number, or None for `null`, which is not the same as no key."""
        return None if self.is_null(key) else default if self.get(key) is None else self.integer(key)

    def nullable_number(self, key: str, default: float) -> float | None:
        """A number, or None for `null`, which is not the same as no key."""
        return None if self.is_null(key) else self.number(key, default=default)

    def number(self, *keys: str, default: float | Required = REQUIRED) -> float:
        """A number, of less than 2^53 in size."""
        value = self._value(keys, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
            raise self.refusal(keys[0], value, "a number, and of less than 2^53")
        return float(value)

    def flag(self, *keys: str, default: bool | Required = REQUIRED) -> bool:
        """True or false."""
        value = self._value(keys, default)
        if not isinstance(value, bool):
            raise self.refusal(keys[0], value, "true or false")
        return value

    def text(self, *keys: str, default: str | Required = REQUIRED) -> str:
        """A string."""
        value = self._value(keys, default)
        if not isinstance(value, str):
            raise self.refusal(keys[0], value, "a string")
        return value

    def activation(self, *keys: str, default: str | Required = REQUIRED) -> Activation:
        """An activation function."""
        name = self.text(*keys, default=default)
        if name not in ACTIVATION_NAMES:
            raise self.refusal(keys[0], name, f"one of {', '.join(ACTIVATION_NAMES)}")
        return ACTIVATION_NAMES[name]

    def numbers(self, *keys: str) -> tuple[float, ...]:
        """A list of numbers."""
        values = self._value(keys, REQUIRED)
        if isinstance(values, list):
            values = [float("inf") if value == _INFINITY else value for value in values]
        if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
            raise self.refusal(keys[0], values, "a list of numbers")
        return tuple(float(value) for value in values)

    def texts(self, *keys: str, default: tuple[str, ...] | Required = REQUIRED) -> tuple[str, ...]:
        """A list of strings."""
        values = self.get(*keys)
        if values is None and default is not REQUIRED:
            return default
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise self.refusal(keys[0], REQUIRED if values is None else values, "a list of strings")
        return tuple(values)

    def sizes(self, key: str, count: int) -> tuple[int, ...] | None:
        """A list of so many whole numbers of at least 1, None where the key is absent."""
        if self.get(key) is None:
            return None
        values = self.numbers(key)
        if len(values) != count or not all(value >= 1 and value == int(value) < _LARGEST for value in values):
            raise self.refusal(key, self.get(key), f"{count} whole numbers")
        return tuple(int(value) for value in values)

    def per_layer(self, key: str, layers: int) -> tuple[Any, ...] | None:
        """A list with a value for each layer, None where the key is absent."""
        values = self.get(key)
        if values is not None and (not isinstance(values, list) or len(values) != layers):
            raise self.refusal(key, values, f"a list of {layers} values, one a layer")
        return None if values is None else tuple(values)

    def section(self, *keys: str) -> "ConfigDict":
        """A nested object; empty where the key is absent."""
        value = self._value(keys, {})
        if not isinstance(value, dict):
            raise self.refusal(keys[0], value, "an object")
        return ConfigDict(value, f"{self._where}: {keys[0]}")

    def sections(self) -> list[str]:
        """Keys of nested objects."""
        return [key for key, value in self._values.items() if isinstance(value, dict)]

    def positions(self, *keys: str) -> PositionLimit:
        """The rows of a learned table of positions."""
        return PositionLimit(self.integer(*keys), self.source(*keys))

    def head(self, tied_by_default: bool = False) -> HeadSpec:
        """`tie_word_embeddings`; where it is absent, families tied by default may still have a head in a checkpoint."""
        if self.get("tie_word_embeddings") is None:
            return HeadSpec(HeadTie.IF_ABSENT if tied_by_default else HeadTie.SEPARATE)
        return HeadSpec(HeadTie.TIED if self.flag("tie_word_embeddings") else HeadTie.SEPARATE)

    def reject(self, key: str, *values: object) -> None:
        """Raise UnsupportedModel if the key has one of these values, which ask for something not served."""
        if self.get(key) in values:
            raise self.refusal(key, self.get(key), "a model without it")

    def reject_section(self, key: str, naming: str) -> None:
        """Raise UnsupportedModel if there is such an object, quoting its key `naming`."""
        if self.get(key) is not None:
            raise self.refusal(f"{key}.{naming}", self.section(key).get(naming), "a model without it")

    def replaced(self, **values: object) -> "ConfigDict":
        """The same config with other values for these keys; what is read of either counts as read."""
        other = ConfigDict({**self._values, **values}, self._where)
        other._read = self._read
        return other

    def source(self, *keys: str) -> str:
        """The first of these keys that is present, and where: for messages. Nothing where none is."""
        key = next((key for key in keys if self._values.get(key) is not None), None)
        return "" if key is None else f"{key} of {self._where}"

    def refusal(self, key: str, value: object, expected: str) -> UnsupportedModel:
        """The error for a value that cannot be served."""
        if value is REQUIRED:
            return UnsupportedModel(f"{self._where}: {key} is missing, expected {expected}")
        return UnsupportedModel(f"{self._where}: {key} is {value!r}, which is not supported; expected {expected}")

    def unread(self) -> list[str]:
        """Keys that nobody asked for."""
        return sorted(self._values.keys() - self._read)

    def _value(self, keys: tuple[str, ...], default: Any) -> Any:
        value = self.get(*keys)
        return default if value is None else value
