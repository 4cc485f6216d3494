"""From where an adapter is said to be to a local directory. Knows the hub, and not what is in the files."""

from pathlib import Path

from text_generation_server.adapters.pairs import WEIGHTS
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
    cached = remote.cached_directory((CONFIG,))
    if cached is not None and (cached / WEIGHTS).exists():
        return cached
    if hub.offline:
        raise ModelNotFound(remote.not_cached())
    remote.fetch(CONFIG)
    return remote.fetch(WEIGHTS).parent
