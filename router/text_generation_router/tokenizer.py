"""Prompts to token ids, in worker threads, exactly as the shards do it: both use the same tokenizer code.

Knows nothing of requests.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from loguru import logger

from text_generation_router.errors import StartError
from text_generation_server.errors import ModelNotFound
from text_generation_server.errors import StartError as ServerStartError
from text_generation_server.images.family import ImageFamily
from text_generation_server.images.registry import read_family
from text_generation_server.tokenization.adapter import Tokenizer, TokenizerAdapter
from text_generation_server.tokenization.fast import Place

_TOKENIZER_FILES = ("*token*", "*.model", "*.tiktoken", "vocab*", "merges.txt", "*chat_template*", "*processor_config*")
_CONFIGURATIONS = ("config.json", "generation_config.json")

T = TypeVar("T")


class Piece(NamedTuple):
    """A token of a text and where it is from, in bytes of UTF-8."""

    id: int
    text: str
    start: int
    stop: int


class Backend(Tokenizer, Protocol):
    """A tokenizer that any thread may call. vocab_size: number of tokens."""

    @property
    def vocab_size(self) -> int: ...

    def encode(self, text: str, truncate: int, add_special_tokens: bool) -> list[int]:
        """Token ids; with `truncate` > 0 at most that many, dropping content on the left."""

    def locate(self, text: str, add_special_tokens: bool) -> list[Place]:
        """All tokens with their places in characters."""

    def id_of(self, token: str) -> int | None:
        """The id of a token's text, if there is such a token."""


class PromptTokenizer:
    """Encodes in `workers` threads, so that long prompts do not hold up the event loop."""

    def __init__(self, backend: Backend, workers: int) -> None:
        self._backend = backend
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="tokenizer")

    async def encode(self, text: str, truncate: int, add_special_tokens: bool) -> tuple[int, ...]:
        """The ids of a prompt, at most `truncate` of them unless that is 0."""
        return tuple(await self.run(lambda: self._backend.encode(text, truncate, add_special_tokens)))

    async def pieces(self, text: str, add_special_tokens: bool = True) -> list[Piece]:
        """All tokens of a text with their places, which are empty where the tokenizer does not know them."""
        return await self.run(lambda: _pieces(text, self._backend.locate(text, add_special_tokens)))

    async def decode(self, ids: Sequence[int], skip_special_tokens: bool) -> str:
        """The text of ids; one without a token has none."""
        return await self.run(lambda: self._backend.decode(ids, skip_special_tokens))

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    async def run(self, work: Callable[[], T]) -> T:
        """The result of other work on prompts, in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _pieces(text: str, places: list[Place]) -> list[Piece]:
    data = text.encode()
    offsets = [0, *accumulate(len(character.encode()) for character in text)]
    spans = ((place.id, offsets[place.start], offsets[place.stop]) for place in places)
    return [Piece(token_id, data[start:stop].decode(errors="replace"), start, stop) for token_id, start, stop in spans]


def find_model(name: str, revision: str | None) -> tuple[Path, str | None]:
    """The directory of a model's tokenizer files, and the hub's commit if it is from the hub.

    name: a directory, or a hub id whose files are taken from the hub's cache, and downloaded if they are not there.
    Raises StartError.
    """
    if Path(name).is_dir():
        return Path(name), None
    from huggingface_hub import snapshot_download  # takes a while to import, and most starts have a directory
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        found = Path(snapshot_download(name, revision=revision, allow_patterns=[*_TOKENIZER_FILES, *_CONFIGURATIONS]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise StartError(f"no tokenizer: {name} is neither a directory nor to be had from the hub ({error})") from error
    return found, found.name


def load_family(directory: Path) -> ImageFamily | None:
    """How the model of a directory takes images; None if it takes none, or its files do not say how."""
    try:
        return read_family(directory)
    except ModelNotFound:
        return None
    except ServerStartError as error:
        logger.warning("Images will be refused: {}", error)
        return None


def load_backend(directory: Path, trust_remote_code: bool) -> Backend:
    """Load the tokenizer of a model directory. Raises StartError."""
    try:
        return TokenizerAdapter.load(directory, trust_remote_code)
    except ServerStartError as error:
        raise StartError(f"no tokenizer: {error}") from error
