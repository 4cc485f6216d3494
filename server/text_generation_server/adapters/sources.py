"""What LORA_ADAPTERS and --lora-ids say: the adapters' names, and where each one is. Knows no files.

The syntax is that of text-generation-inference's launcher, and of kv.run's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from text_generation_server.errors import InvalidSettings

NONE_WANTED = "empty"
"""How kv.run's launchers spell that none are wanted."""


@dataclass(frozen=True, slots=True)
class AdapterSource:
    """name: what requests call it. place: a directory or a hub id. revision: on the hub, None for the main branch."""

    name: str
    place: str
    revision: str | None = None


def adapter_sources(listed: str, lora_ids: str = NONE_WANTED) -> tuple[AdapterSource, ...]:
    """Those of a list `id`, `id@revision`, `name=place`, `name=place@revision` with commas, then ids with semicolons.

    Raises:
        InvalidSettings: an item is none of these, or a name comes twice.
    """
    sources = [_listed(item.strip()) for item in listed.split(",")] if listed.strip() else []
    if lora_ids.strip() != NONE_WANTED:
        sources += [AdapterSource(item.strip(), item.strip()) for item in lora_ids.split(";") if item.strip()]
    _refuse_doubles([source.name for source in sources])
    return tuple(sources)


def _listed(item: str) -> AdapterSource:
    rest, *revisions = item.split("@")
    name, *places = rest.split("=")
    parts = [name, *places, *revisions]
    if len(revisions) > 1 or len(places) > 1 or not all(parts):
        raise InvalidSettings(
            f"LORA_ADAPTERS has {item!r}, expected `id`, `id@revision`, `name=place` or `name=place@revision`, "
            "separated by commas"
        )
    return AdapterSource(name, places[0] if places else name, revisions[0] if revisions else None)


def _refuse_doubles(names: Sequence[str]) -> None:
    double = next((name for at, name in enumerate(names) if name in names[:at]), None)
    if double is not None:
        raise InvalidSettings(f"the adapter {double!r} is named twice; leave one of them out, or call it otherwise")
