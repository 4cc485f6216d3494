"""What clients call adapters, and what the shards do: every content that a name has had is another adapter to them.

A request keeps the content that its name meant when it came, for all of its stays; blocks of the cache are shared by
requests with the same content only. A content that no name means any more is unloaded with its last request.
Knows neither HTTP nor gRPC.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from loguru import logger

from text_generation_router.errors import AdapterRefused, InvalidInput
from text_generation_router.shards.adapter_calls import AdapterCalls
from text_generation_server.errors import excerpt

LONGEST_NAME = 512
"""Characters, of a place too; shards tell both in the headers of their answers, which are of 8 KiB at most."""

_MARK = "#"
"""Between a name and the number of its content, where that is not the first."""


@dataclass(slots=True)
class _Content:
    """What the shards call a content, and the requests that have it. gone: no name means it."""

    shard_name: str
    generation: int
    digest: str = ""
    requests: int = 0
    gone: bool = False


class Adapters:
    """The adapters of the shards. listed: the names that these have at the start."""

    def __init__(self, calls: AdapterCalls, listed: Sequence[str]) -> None:
        self._calls = calls
        self._contents: dict[str, _Content] = {}
        self._generations: dict[str, int] = {}  # of names that are free again, too: none comes twice
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._unloading: set[asyncio.Future[None]] = set()
        for shard_name in listed:
            name, _, number = shard_name.rpartition(_MARK)
            content = _Content(shard_name, int(number)) if name and number.isdecimal() else _Content(shard_name, 1)
            name = name if content.generation > 1 else shard_name
            if self._generations.get(name, 0) < content.generation:
                self._contents[name], self._generations[name] = content, content.generation

    @property
    def names(self) -> tuple[str, ...]:
        """What requests may name."""
        return tuple(sorted(self._contents))

    def __contains__(self, name: object) -> bool:
        """Whether requests may name it."""
        return name in self._contents

    async def find(self, name: str) -> bool:
        """Whether requests may name it: what the shards have on disk they load now.

        Raises InvalidInput if it cannot be served, AdapterRefused if not at present.
        """
        if name in self._contents:
            return True
        if _MARK in name or len(name) > LONGEST_NAME:
            return False
        try:
            async with self._lock(name):
                await self._load(name, "", None)
        except AdapterRefused as error:
            if error.status in (404, 501):
                return False
            if error.status != 422:
                raise
            raise InvalidInput(f"the adapter {excerpt(name)!r} cannot be loaded: {error}") from error
        return True

    @contextmanager
    def held(self, name: str | None) -> Iterator[str | None]:
        """What the shards call what a name means now, for as long as a request takes. Raises InvalidInput."""
        if name is None:
            yield None
            return
        content = self._contents.get(name)
        if content is None:
            raise InvalidInput(f"the adapter {excerpt(name)!r} was unloaded before the request was queued")
        content.requests += 1
        try:
            yield content.shard_name
        finally:
            content.requests -= 1
            self._unload_if_unused(content)

    async def load(self, name: str, place: str, token: str | None = None) -> None:
        """Give an adapter its name, from the next request on. place: a directory or a hub id.

        Raises AdapterRefused.
        """
        if not name or _MARK in name:
            raise AdapterRefused(422, f"an adapter's name has no {_MARK} and is not empty. Given: {excerpt(name)}")
        longest = max(name, place, key=len)
        if len(longest) > LONGEST_NAME:
            most = f"an adapter's name and its place have {LONGEST_NAME} characters at most"
            raise AdapterRefused(422, f"{most}. Given: {excerpt(longest)}")
        async with self._lock(name):
            await self._load(name, place, token)

    async def unload(self, name: str) -> None:
        """Free a name; requests that came before go on. Raises AdapterRefused."""
        async with self._lock(name):
            content = self._named(name)
            del self._contents[name]
            content.gone = content.requests > 0
            if not content.gone:
                await self._calls.unload(content.shard_name)

    async def pin(self, name: str, pinned: bool) -> None:
        """Let an adapter stay in memory, or no longer. Raises AdapterRefused."""
        await self._calls.pin(self._named(name).shard_name, pinned)

    async def listed(self) -> list[dict[str, Any]]:
        """What operators see. Raises AdapterRefused."""
        found = {info.name: info for info in await self._calls.listed()}
        told = []
        for name in self.names:
            content = self._contents[name]
            info = found.get(content.shard_name)
            if info is not None:
                told.append({
                    "name": name,
                    "rank": info.rank,
                    "targets": list(info.targets),
                    "generation": content.generation,
                    "residency": info.residency,
                    "pinned": info.pinned,
                    "requests": content.requests,
                    "requests_total": info.requests_total,
                })  # fmt: skip
        return told

    def _lock(self, name: str) -> asyncio.Lock:
        """For what changes a name; others are not kept waiting by a download."""
        lock = self._locks.get(name) or asyncio.Lock()
        self._locks[name] = lock
        return lock

    def _named(self, name: str) -> _Content:
        if name not in self._contents:
            raise AdapterRefused(
                404, f"there is no adapter {excerpt(name)!r} here; there are {', '.join(self.names) or 'none'}"
            )
        return self._contents[name]

    async def _load(self, name: str, place: str, token: str | None) -> None:
        old, generation = self._contents.get(name), self._generations.get(name, 0) + 1
        if old is not None and not place:
            return  # another request has found it meanwhile
        new = _Content(f"{name}{_MARK}{generation}" if generation > 1 else name, generation)
        shard_name = new.shard_name
        loading = self._calls.load(shard_name, place, token) if place else self._calls.find(shard_name, name)
        new.digest = (await loading).digest
        if old is not None and old.digest == new.digest:
            await self._calls.unload(new.shard_name)
            return
        self._contents[name], self._generations[name] = new, generation
        if old is not None:
            old.gone = True
            self._unload_if_unused(old)

    def _unload_if_unused(self, content: _Content) -> None:
        if content.gone and not content.requests:
            content.gone = False  # once
            unloading = asyncio.ensure_future(self._forget(content.shard_name))
            self._unloading.add(unloading)
            unloading.add_done_callback(self._unloading.discard)

    async def _forget(self, shard_name: str) -> None:
        try:
            await self._calls.unload(shard_name)
        except AdapterRefused as error:
            logger.warning("The adapter {} could not be unloaded: {}", shard_name, error)
