"""Which adapter is at which place of the device, and which must leave for others. Knows neither tensors nor requests.

The least recently used one leaves that nothing runs with. Where there is none, the least recently used one is drained:
requests that run with it go on, new ones wait, and so whoever waits for its place waits no longer than those run.
"""

from text_generation_server.adapters.known import AdapterDevice, KnownAdapter


class Places:
    """`count` places, numbered from 1."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = list(range(count, 0, -1))
        self._here: dict[KnownAdapter, None] = {}
        self._drained: dict[KnownAdapter, KnownAdapter] = {}  # and for whom

    def give(self, adapter: KnownAdapter, device: AdapterDevice) -> bool:
        """Give an adapter in host memory a place, if one can be had."""
        if not self._free:
            unused = [known for known in self._here if not known.seated and not known.pinned]
            if not unused:
                self._drain_for(adapter)
                return False
            self.vacate(min(unused, key=_last_use))
        adapter.place = self._free.pop()
        self._here[adapter] = None
        self._drained = {left: waits for left, waits in self._drained.items() if waits is not adapter}
        device.put_adapter(adapter.key, adapter.place)
        return True

    def vacate(self, adapter: KnownAdapter) -> None:
        """Take an adapter's place back, if it has one; nothing may run with it."""
        if adapter.place:
            self._free.append(adapter.place)
            adapter.place = 0
            del self._here[adapter]
            self._drained.pop(adapter, None)

    def drains(self, adapter: KnownAdapter) -> bool:
        """Whether no more requests may begin to run with an adapter, as another waits for its place."""
        waits = self._drained.get(adapter)
        if waits is not None and not waits.awaited:
            del self._drained[adapter]
            return False
        return waits is not None

    def _drain_for(self, adapter: KnownAdapter) -> None:
        left = [known for known in self._here if not known.pinned and not self.drains(known)]
        if left and adapter not in self._drained.values():
            self._drained[min(left, key=_last_use)] = adapter


def _last_use(adapter: KnownAdapter) -> int:
    return adapter.used
