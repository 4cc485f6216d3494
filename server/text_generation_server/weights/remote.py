"""Asks the hub: which files a model has, and one file at a time, with five tries. Knows not what the files are for."""

import errno
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from text_generation_server.errors import ModelNotFound

Report = Callable[[str], None]
"""Takes one line about what is being done."""

_TRIES = 5
_FINAL = (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError, HFValidationError, OfflineModeIsEnabled)
"""Answers that another try cannot change."""

_OF_THIS_HOST = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST)
"""Numbers of errors that come from the disk, not from the hub."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HubSettings:
    """Where models are looked for and kept; None stands for the hub library's own default.

    converted_cache: where GGUF files are kept as model directories.
    cache_dir: the hub cache.
    token: for private and gated models.
    offline: use what is cached, never the network.
    weights_cache_override: a directory that holds the weights and configuration of the one model served.
    endpoint: the hub's URL.
    retry_pause_s: seconds between tries.
    """

    converted_cache: Path
    cache_dir: Path | None = None
    token: str | None = None
    offline: bool = False
    weights_cache_override: Path | None = None
    endpoint: str | None = None
    retry_pause_s: float = 5.0


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A model on a hub, by its id and revision (None: the main branch)."""

    model_id: str
    revision: str | None
    hub: HubSettings
    report: Report

    def __str__(self) -> str:
        return self.model_id if self.revision is None else f"{self.model_id} at revision {self.revision}"

    def cached_directory(self, any_of: Sequence[str]) -> Path | None:
        """The folder of the hub cache that holds one of these files, found without the network."""
        try:
            found = [try_to_load_from_cache(self.model_id, name, self.hub.cache_dir, self.revision) for name in any_of]
        except HFValidationError as error:
            raise ModelNotFound(self._explain(error, "files")) from error
        return next((Path(path).parent for path in found if isinstance(path, str)), None)

    def not_cached(self) -> str:
        """The sentence for a model that would have to be downloaded and must not be."""
        return (
            f"{self} is not, or not whole, in the hub cache, and offline mode forbids downloading it: "
            "unset HF_HUB_OFFLINE, or name a local directory"
        )

    def list_files(self) -> list[str]:
        """Names of all files, with their folders. Raises ModelNotFound."""
        api = HfApi(endpoint=self.hub.endpoint, token=self.hub.token)
        info = self._ask(lambda: api.model_info(self.model_id, revision=self.revision), "its list of files")
        return [sibling.rfilename for sibling in info.siblings or []]

    def fetch(self, name: str) -> Path:
        """Download one file into the hub cache, unless it is there. Raises ModelNotFound."""
        start = time.monotonic()
        path = Path(self._ask(lambda: self._download(name), name))
        self.report(f"Downloaded {name}: {path.stat().st_size / 1e6:.1f} MB in {time.monotonic() - start:.1f} s")
        return path

    def _download(self, name: str) -> str:
        return hf_hub_download(
            self.model_id,
            name,
            revision=self.revision,
            cache_dir=self.hub.cache_dir,
            token=self.hub.token,
            endpoint=self.hub.endpoint,
        )

    def _ask(self, question: Callable[[], T], what: str) -> T:
        for tries_left in range(_TRIES - 1, -1, -1):
            try:
                return question()
            except (
                Exception
            ) as error:  # the hub library's HTTP client, and so its errors, changed with each major version
                if tries_left == 0 or _is_final(error):
                    raise ModelNotFound(self._explain(error, what)) from error
                self.report(f"Could not get {what} of {self}: {error}; trying again, {tries_left} tries left")
                time.sleep(self.hub.retry_pause_s)
        raise AssertionError("the last try returns or raises")

    def _explain(self, error: Exception, what: str) -> str:
        match error:
            case GatedRepoError():
                return f"{self} is gated: accept its terms on the hub, then set HF_TOKEN to a token of that account"
            case RepositoryNotFoundError() | HFValidationError():
                return (
                    f"{self.model_id!r} is neither a local directory or .gguf file nor a model on the hub: check the "
                    "spelling, and set HF_TOKEN if the model is private"
                )
            case OfflineModeIsEnabled():
                return self.not_cached()
            case OSError() if error.errno in _OF_THIS_HOST:
                return (
                    f"{what} of {self} cannot be kept in the hub cache ({error}): make room, or name another directory"
                )
            case RevisionNotFoundError():
                return f"{self.model_id} has no revision {self.revision!r}: check --revision"
            case _:
                return (
                    f"could not get {what} of {self} from the hub: {error}; check the network, name a local directory, "
                    "or set HF_HUB_OFFLINE=1 to use only what is cached"
                )


def _is_final(error: Exception) -> bool:
    missing = isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError)
    local = isinstance(error, OSError) and error.errno in _OF_THIS_HOST
    return missing or local or isinstance(error, _FINAL)
