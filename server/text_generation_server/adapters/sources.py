"""What LORA_ADAPTERS and --lora-ids say: the adapters' names, and where each one is. Knows no files.

The syntax is that of text-generation-inference's launcher, and of kv.run's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from text_generation_server.errors import InvalidSettings

NONE_WANTED = "empty"
"""How kv.run's launchers spell that none are wanted."""

USUAL_PLACES, USUAL_RANK = 8, 16
"""Adapters on the device, and the largest rank of them, where nobody says."""


@dataclass(frozen=True, slots=True)
class AdapterSource:
    """name: what requests call it. place: a directory or a hub id. revision: on the hub, None for the main branch."""

    name: str
    place: str
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """What an operator decides about adapters.

    named: read at the start. directory: where names of requests are looked for, a directory each.
    places: on the device, None for as many as are named, at least `USUAL_PLACES`. rank: of the largest pair there is
    room for, None for the largest of those named, at least `USUAL_RANK`. expert_rank: the same of experts' pairs, which
    are many: None for no more than those named need. kept: most in host memory, None for the usual.
    unknown_is_base: whether a name that nothing has is the model itself, and not an error.
    """

    named: tuple[AdapterSource, ...] = ()
    directory: Path | None = None
    places: int | None = None
    rank: int | None = None
    expert_rank: int | None = None
    kept: int | None = None
    unknown_is_base: bool = False

    @property
    def asked(self) -> bool:
        """Whether anything was said: then places are made at the start, and routers told that there are adapters."""
        return replace(self, unknown_is_base=False) != AdapterSettings()

    @property
    def device_places(self) -> int:
        """How many adapters can be on the device."""
        return max(len(self.named), USUAL_PLACES) if self.places is None else self.places

    @property
    def host_places(self) -> int:
        """How many adapters can be in host memory."""
        return max(2 * self.device_places, len(self.named)) if self.kept is None else self.kept

    def check(self) -> None:
        """Raises InvalidSettings for numbers that contradict each other."""
        least = max(2 * self.device_places, len(self.named))
        if self.host_places < least:
            raise InvalidSettings(
                f"--max-cpu-loras is {self.host_places}, expected at least {least}: twice --max-device-loras, and all "
                "adapters that are named at the start"
            )


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
