"""All adapters that rank 0 knows by name: where each one is, who uses it, and who must wait. Knows no requests.

Everything here is for the engine thread; files are read in another (`AdapterReader`). An adapter is on disk only, in
host memory, or at a place of the device as well. Requests that wait are seated in their order
(docs/lora.md#more-adapters-than-places).
"""

from collections.abc import Collection
from concurrent.futures import Future
from itertools import count
from typing import Protocol

from loguru import logger

from text_generation_server.adapters.known import AdapterDevice, AdapterFacts, AdapterStatus, KnownAdapter
from text_generation_server.adapters.places import Places
from text_generation_server.adapters.sources import AdapterSource
from text_generation_server.errors import InvalidRequest, NotEnoughMemory, UnknownAdapter, UnsupportedModel, excerpt

MOST_WARNED = 1000
"""Names that are warned of; clients may send any number of them."""


class AdapterReader(Protocol):
    """Reads adapters on all ranks, off the engine thread."""

    def start(self, key: int, source: AdapterSource) -> Future[AdapterFacts]:
        """Read a local adapter into every rank's host memory, under this key. The future may raise StartError."""


class AdapterRegistry:
    """The adapters of a shard.

    reader: None where the model can have none. places: on the device. kept: most adapters in host memory, at least
    twice as many as there are places. base: what the model itself is called. strict: a name that nothing has is an
    error even where no adapter is loaded; else it is the model itself then, as clients send any name as the model's.
    lenient: such a name is always the model itself, as text-generation-inference has it, and warned of once.
    """

    def __init__(
        self,
        device: AdapterDevice,
        reader: AdapterReader | None = None,
        places: int = 0,
        kept: int = 0,
        base: str = "",
        strict: bool = False,
        lenient: bool = False,
    ) -> None:
        self.names: tuple[str, ...] = ()
        self._device = device
        self._reader = reader
        self._places = Places(places)
        self._kept = kept
        self._base = base
        self._strict = strict
        self._lenient = lenient
        self._warned: set[str] = set()
        self._known: dict[str, KnownAdapter] = {}
        self._reading: dict[KnownAdapter, int] = {}
        self._keys = count(1)
        self._uses = count(1)

    # -- what operators ask for

    def add_read(self, source: AdapterSource, facts: AdapterFacts) -> None:
        """Name an adapter that every rank has read, before anything else, under the keys 1, 2, …"""
        self._name(KnownAdapter(source.name, source, facts=facts, key=next(self._keys)))

    def load(self, source: AdapterSource) -> Future[AdapterFacts]:
        """Start reading a local adapter, which has its name from the next `settle` after that.

        Raises:
            InvalidRequest: the model cannot have any.
            NotEnoughMemory: there is no room for it, or on the device for none.
        """
        self.settle()
        adapter = KnownAdapter(source.name, source)
        if not self._read(adapter, {known for known in self._known.values() if known.holders}):
            raise NotEnoughMemory(
                f"all {self._kept} adapters in memory are in use or pinned: unload one, or raise --max-cpu-loras"
            )
        assert adapter.reading is not None
        return adapter.reading

    def unload(self, name: str) -> None:
        """Free a name; requests that have it go on. Raises UnknownAdapter."""
        self.settle()
        adapter = self._named(name)
        del self._known[name]
        self._list_names()
        self._retire(adapter)

    def pin(self, name: str, pinned: bool) -> None:
        """Let an adapter stay in memory, and at its place once it has one, or no longer.

        Raises UnknownAdapter, and InvalidRequest where no place would be left for others.
        """
        self.settle()
        adapter = self._named(name)
        others = sum(known.pinned for known in self._known.values() if known is not adapter)
        if pinned and others + 1 >= self._places.count:
            raise InvalidRequest(
                f"{others} of {self._places.count} places are pinned, and one must be left for other adapters: unpin "
                "one, or start with a larger --max-device-loras"
            )
        adapter.pinned = pinned

    def status(self) -> list[AdapterStatus]:
        """All adapters that have a name."""
        self.settle()
        return [_status(self._known[name], self._known[name].facts) for name in self.names]

    # -- what requests need

    def hold(self, asked: str | None, found: AdapterSource | None = None) -> KnownAdapter | None:
        """What a request names, to be let go when it ends; None for the model itself.

        found: where its files are, if nothing here has the name: they will be read.

        Raises UnknownAdapter.
        """
        if asked is None or asked == self._base:
            return None
        adapter = self._known.get(asked)
        if adapter is None and found is not None:
            adapter = self._known[asked] = KnownAdapter(asked, found)
        if adapter is None:
            if not self.names and not self._strict:
                return None
            if self._lenient:
                self._warn_of(asked)
                return None
            named = f"name one of {', '.join(self.names)}, or none for" if self.names else "name none for"
            raise UnknownAdapter(f"there is no adapter {excerpt(asked)!r} here; {named} the model itself")
        adapter.holders += 1
        adapter.requests += 1
        return adapter

    def let_go(self, adapter: KnownAdapter, seated: bool) -> None:
        """A request has ended that held it, and ran with it if `seated`."""
        adapter.holders -= 1
        adapter.seated -= seated
        if adapter.holders:
            return
        adapter.failure = None
        if adapter.gone:
            self._forget(adapter)
        elif adapter.facts is None and adapter.reading is None:
            self._unname(adapter)

    def seat(self, adapter: KnownAdapter, before: Collection[KnownAdapter], joins: bool = False) -> bool:
        """Whether a request may run, from now on, with what it holds. before: what others hold that wait for longer.

        joins: it has waited with another that was seated just now, and has its turn with it.

        Raises:
            StartError: it could not be read.
            UnknownAdapter: it was unloaded, and cannot be read any more.
            NotEnoughMemory: the device has no room for adapters.
        """
        if adapter.failure is not None:
            raise adapter.failure
        if not adapter.place and not adapter.key:
            if adapter.gone:
                raise UnknownAdapter(f"the adapter {adapter.name!r} was unloaded while a request waited for it")
            if adapter.reading is None:
                self._read(adapter, before)
            return False
        if not adapter.place and not self._places.give(adapter, self._device):
            return False
        if not joins and self._places.drains(adapter):
            return False
        adapter.seated += 1
        adapter.used = next(self._uses)
        return True

    def settle(self) -> None:
        """Take what has been read by now."""
        for adapter, key in [*self._reading.items()]:
            if adapter.reading is not None and adapter.reading.done():
                del self._reading[adapter]
                self._take(adapter, key, adapter.reading)

    @property
    def under_way(self) -> list[Future[AdapterFacts]]:
        """What is being read."""
        return [adapter.reading for adapter in self._reading if adapter.reading is not None]

    # -- how it is done

    def _warn_of(self, asked: str) -> None:
        if asked not in self._warned and len(self._warned) < MOST_WARNED:
            self._warned.add(asked)
            logger.warning(
                "There is no adapter {}: requests that name it are served by the model itself", excerpt(asked)
            )

    def _read(self, adapter: KnownAdapter, spared: Collection[KnownAdapter]) -> bool:
        """Start reading an adapter, if there is room in host memory or can be made, but by none of the `spared`."""
        if self._reader is None:
            raise InvalidRequest(
                "this model has no adapters: it runs through transformers' code, or was started with --deterministic "
                "or without places for them"
            )
        in_memory = [known for known in self._known.values() if known.key]
        if len(in_memory) + len(self._reading) >= self._kept:
            unused = [known for known in in_memory if not known.seated and not known.pinned and known not in spared]
            if not unused:
                return False
            self._forget(min(unused, key=lambda known: (known.holders > 0, known.used)))
        self._device.reserve_adapters()
        key = next(self._keys)
        adapter.reading, self._reading[adapter] = self._reader.start(key, adapter.source), key
        return True

    def _take(self, adapter: KnownAdapter, key: int, reading: Future[AdapterFacts]) -> None:
        """Take what was read, or why it could not be."""
        adapter.reading = None
        try:
            facts = reading.result()
            if adapter.facts not in (None, facts):
                raise UnsupportedModel(
                    f"the files of the adapter {adapter.name!r} are others than when it was loaded: load it again"
                )
        except Exception as error:
            adapter.failure = error if adapter.holders else None
            self._device.drop_adapter(key)
            if adapter.facts is None:
                self._unname(adapter)
            return
        known, adapter.facts, adapter.key = adapter.facts is not None, facts, key
        if adapter.gone:
            if not adapter.holders:
                self._forget(adapter)
        elif not known:
            self._name(adapter)

    def _name(self, adapter: KnownAdapter) -> None:
        """Let an adapter that was read have its name, from which others of that name go."""
        old = self._known.get(adapter.name)
        if old is not None and old is not adapter:
            if old.facts == adapter.facts:
                self._renew(old, adapter)
                return
            self._retire(old)
            adapter.pinned = old.pinned
        adapter.generation = 1 if old is None or old is adapter else old.generation + 1
        self._known[adapter.name] = adapter
        self._list_names()

    def _renew(self, old: KnownAdapter, same: KnownAdapter) -> None:
        """An adapter was loaded again, and is what it was."""
        old.source = same.source
        if old.key:
            self._device.drop_adapter(same.key)
        else:
            old.key = same.key

    def _retire(self, adapter: KnownAdapter) -> None:
        """Its name is free: it leaves with its last request."""
        adapter.gone = True
        if not adapter.holders:
            self._forget(adapter)

    def _forget(self, adapter: KnownAdapter) -> None:
        """Take its memory back; nothing runs with it."""
        self._places.vacate(adapter)
        if adapter.key:
            self._device.drop_adapter(adapter.key)
            adapter.key = 0

    def _unname(self, adapter: KnownAdapter) -> None:
        if self._known.get(adapter.name) is adapter:
            del self._known[adapter.name]

    def _named(self, name: str) -> KnownAdapter:
        if name not in self.names:
            raise UnknownAdapter(
                f"there is no adapter {excerpt(name)!r} here; there are {', '.join(self.names) or 'none'}"
            )
        return self._known[name]

    def _list_names(self) -> None:
        self.names = tuple(sorted(name for name, known in self._known.items() if known.facts is not None))


def _status(adapter: KnownAdapter, facts: AdapterFacts | None) -> AdapterStatus:
    assert facts is not None  # only those that were read have a name
    return AdapterStatus(
        *(adapter.name, facts.rank, facts.targets, adapter.generation, adapter.residency),
        *(adapter.pinned, adapter.holders, adapter.requests, facts.digest),
    )
