"""Closes the objects of a JSON schema, as servers of this protocol have always read schemas. Knows no library.

Whatever has `properties` is an object, and has no others unless it says so. Where objects are composed (`allOf`,
`anyOf`, `oneOf`, `$ref` beside other keywords) several places describe one value, so each lets through what the others
describe: the whole is closed and not its parts, as by `unevaluatedProperties: false`. Of alternatives one is followed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import unquote

from text_generation_server.errors import InvalidRequest

MAX_WORK = 2**18
"""Schemas and keys looked at. References repeated in references would multiply without end."""

_COMPOSED = ("allOf", "anyOf", "oneOf")
_LISTS = ("items", "prefixItems")
_MAPS = ("$defs", "$functions", "definitions", "patternProperties", "properties", "schemas")
_ONE = ("additionalItems", "additionalProperties", "components", "items")
_OPEN = "unevaluatedProperties"


@dataclass(frozen=True, slots=True)
class _Keys:
    """The keys of an object that some schemas describe.

    names: by name. patterns: by regular expression. any: whether all others are allowed.
    """

    names: frozenset[str] = frozenset()
    patterns: frozenset[str] = frozenset()
    any: bool = False

    def __bool__(self) -> bool:
        return bool(self.names or self.patterns or self.any)

    @classmethod
    def union(cls, keys: Iterable[Self]) -> "_Keys":
        """What any of them describes."""
        listed = list(keys)
        names = frozenset[str]().union(*(one.names for one in listed))
        patterns = frozenset[str]().union(*(one.patterns for one in listed))
        return _Keys(names, patterns, any(one.any for one in listed))


def closed(schema: Any) -> Any:
    """A JSON schema in which whatever has `properties` is closed, unless it says otherwise.

    Raises:
        InvalidRequest: references multiply beyond what can be read.
    """
    return _Closer(schema).close(schema)


class _Closer:
    """Reads one document."""

    def __init__(self, document: Any) -> None:
        self._document = document
        self._left = MAX_WORK

    def close(self, schema: Any, others: _Keys = _Keys(), followed: frozenset[str] = frozenset()) -> Any:
        """A schema closed; `others` are the keys that the same value may have by schemas around it.

        followed: references on the way here, which are not put in again.
        """
        if not isinstance(schema, Mapping):
            return schema
        self._spend(1 + len(others.names))
        result = self._nested(schema)
        own, reference = _own_keys(schema), schema.get("$ref")
        lists = {key: _list(schema, key) for key in _COMPOSED}
        told = {key: [self._all_keys(part) for part in parts] for key, parts in lists.items()}
        referred = self._all_keys({"$ref": reference})
        outside = _Keys.union((own, others, referred))
        for key, parts in lists.items():
            siblings = [keys for other, listed in told.items() if other != key for keys in listed]
            for place, part in enumerate(parts):
                # Of alternatives one is enough; of what holds together, each lets through what the rest describes.
                rest = told[key][:place] + told[key][place + 1 :] if key == "allOf" else []
                self._spend(len(rest) + len(siblings))
                around = _Keys.union((outside, *siblings, *rest))
                result[key][place] = self.close(part, around, followed)
        composed = [keys for listed in told.values() for keys in listed]
        around = _Keys.union((own, others, *composed))
        if around and isinstance(reference, str) and reference not in followed and self._target(reference) is not None:
            del result["$ref"]
            target = self.close(self._target(reference), around, followed | {reference})
            result["allOf"] = [*result.get("allOf", []), target]
        if isinstance(schema.get("properties"), Mapping) or schema.get(_OPEN) is False:
            _close_object(result, _Keys.union((others, referred, *composed)), own)
        return result

    def _nested(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """A copy in which the schemas of other values (properties, items, definitions) are closed."""
        result = dict(schema)
        if isinstance(schema.get(_OPEN), bool):
            del result[_OPEN]
        for key in _COMPOSED:
            if isinstance(schema.get(key), list):
                result[key] = list(schema[key])
        for key in _ONE:
            if isinstance(schema.get(key), Mapping):
                result[key] = self.close(schema[key])
        for key in _LISTS:
            if isinstance(schema.get(key), list):
                result[key] = [self.close(part) for part in schema[key]]
        for key in _MAPS:
            if isinstance(schema.get(key), Mapping):
                result[key] = {name: self.close(part) for name, part in schema[key].items()}
        return result

    def _all_keys(self, schema: Any) -> _Keys:
        """Every key that a schema describes, in itself, in what it is composed of, and where it refers to."""
        found, waiting, seen = [], [schema], set[str]()
        while waiting:
            part = waiting.pop()
            if not isinstance(part, Mapping):
                continue
            self._spend(1)
            found.append(_own_keys(part))
            waiting += [child for key in _COMPOSED for child in _list(part, key)]
            reference = part.get("$ref")
            if isinstance(reference, str) and reference not in seen:
                seen.add(reference)
                waiting.append(self._target(reference))
        return _Keys.union(found)

    def _target(self, reference: str) -> Any:
        """What a reference within the document (RFC 6901) leads to, None if nothing."""
        if not reference.startswith("#"):
            return None
        place = self._document
        for step in unquote(reference[1:]).split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(place, list) and name.isdecimal() and int(name) < len(place):
                place = place[int(name)]
            elif isinstance(place, Mapping) and name in place:
                place = place[name]
            else:
                return None
        return place

    def _spend(self, work: int) -> None:
        self._left -= work
        if self._left < 0:
            raise InvalidRequest(
                f"the grammar composes more than {MAX_WORK} schemas and keys by allOf, anyOf, oneOf and $ref, "
                "expected a schema with fewer"
            )


def _list(schema: Mapping[str, Any], key: str) -> Sequence[Any]:
    parts = schema.get(key)
    return parts if isinstance(parts, list) else ()


def _own_keys(schema: Mapping[str, Any]) -> _Keys:
    """The keys that one schema describes by itself."""
    properties, patterns = schema.get("properties"), schema.get("patternProperties")
    return _Keys(
        frozenset(properties) if isinstance(properties, Mapping) else frozenset(),
        frozenset(patterns) if isinstance(patterns, Mapping) else frozenset(),
        schema.get("additionalProperties", False) is not False or schema.get(_OPEN) is True,
    )


def _close_object(schema: dict[str, Any], others: _Keys, own: _Keys) -> None:
    """Let a schema of an object have no keys but its own and those of others."""
    schema.setdefault("type", "object")
    if "additionalProperties" in schema or others.any or own.any:
        return
    schema["additionalProperties"] = False
    more = dict.fromkeys(sorted(others.names - own.names), True)
    schema["properties"] = {**schema.get("properties", {}), **more}
    if patterns := dict.fromkeys(sorted(others.patterns - own.patterns), True):
        schema["patternProperties"] = {**schema.get("patternProperties", {}), **patterns}
