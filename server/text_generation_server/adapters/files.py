"""From where an adapter is said to be to a local directory. Knows the hub, and not what is in the files."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from text_generation_server.adapters.pairs import PICKLED_WEIGHTS, WEIGHTS
from text_generation_server.adapters.peft_config import CONFIG
from text_generation_server.adapters.sources import AdapterSource
from text_generation_server.errors import ModelNotFound
from text_generation_server.weights.remote import HubSettings, RemoteModel, Report


def locate_adapter(source: AdapterSource, hub: HubSettings, report: Report) -> Path:
    """The directory with the adapter's files: a local one, or the hub cache's, after fetching what is missing there.

    Raises:
        ModelNotFound: it is neither here nor on the hub; the text says what to do.
    """
    local = Path(source.place).expanduser()
    if local.is_dir():
        return local
    if source.place.startswith(("/", ".", "~")) or source.place.count("/") > 1:
        raise ModelNotFound(f"there is no directory {source.place} of the adapter {source.name}: check the path")
    remote = RemoteModel(source.place, source.revision, hub, report)
    cached = cached_adapter(source, hub)
    if cached is not None:
        return cached
    if hub.offline:
        raise ModelNotFound(remote.not_cached())
    remote.fetch(CONFIG)
    try:
        return remote.fetch(WEIGHTS).parent
    except ModelNotFound:
        if PICKLED_WEIGHTS not in remote.list_files():
            raise
        return remote.fetch(PICKLED_WEIGHTS).parent


def cached_adapter(source: AdapterSource, hub: HubSettings) -> Path | None:
    """The directory of the hub cache that holds the whole adapter, found without the network."""
    cached = RemoteModel(source.place, source.revision, hub, lambda _: None).cached_directory((CONFIG,))
    return cached if cached is not None and _is_adapter(cached) else None


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """Where adapters come from while a shard serves. directory: the operator's, with a directory each."""

    directory: Path | None
    hub: HubSettings
    report: Report

    def found(self, names: Iterable[str]) -> Mapping[str, AdapterSource]:
        """Those of the names that are in the directory or in the hub cache, found without the network."""
        places = {name: self._local(name) for name in names}
        return {name: AdapterSource(name, str(place)) for name, place in places.items() if place is not None}

    def fetched(self, source: AdapterSource, token: str | None) -> AdapterSource:
        """The same at a local place; what is not local is downloaded. token: for the hub, None for the operator's.

        Raises ModelNotFound.
        """
        hub = self.hub if token is None else replace(self.hub, token=token)
        return replace(source, place=str(locate_adapter(source, hub, self.report)), revision=None)

    def _local(self, name: str) -> Path | None:
        """A name is no path: none leads out of the directory."""
        parts = name.split("/")
        if "\\" in name or "\0" in name or not all(part.strip(".") for part in parts):
            return None
        if self.directory is not None and _is_adapter(self.directory / name):
            return self.directory / name
        try:
            return cached_adapter(AdapterSource(name, name), self.hub) if len(parts) < 3 else None
        except ModelNotFound:  # it could not be a hub id
            return None


def _is_adapter(directory: Path) -> bool:
    weights = (directory / WEIGHTS, directory / PICKLED_WEIGHTS)
    return (directory / CONFIG).is_file() and any(path.is_file() for path in weights)
