"""A router's allocator of blocks with its prefix cache and that one's false claims (docs/protocol.md#prefixes)."""

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class Allocation:
    """Blocks and slots of a request; the first `cached` positions are believed to be computed."""

    prompt: tuple[int, ...]
    blocks: list[int]
    slots: list[int]
    cached: int


class RouterBlocks:
    """Block 0 is never handed out. A prompt counts as computed once its allocation is dropped, true or not."""

    def __init__(self, tokens: int, block_size: int, share_prefixes: bool) -> None:
        self._size = block_size
        self._shares = share_prefixes
        self._free = list(range(1, tokens // block_size))
        self._known: dict[tuple[int, ...], int] = {}
        self._readers: Counter[int] = Counter()

    def allocate(self, prompt: list[int], new: int) -> Allocation:
        """Known blocks of the prompt's beginning, and fresh ones for the rest."""
        ids, tokens = tuple(prompt), len(prompt) + new - 1
        shared: list[int] = []
        while self._shares and (block := self._known.get(ids[: (len(shared) + 1) * self._size])) is not None:
            if (len(shared) + 1) * self._size > len(ids):
                break
            shared.append(block)
        cached = len(shared) * self._size
        needed = -(-tokens // self._size) - len(shared)
        fresh = [self._free.pop() for _ in range(max(needed, 0))]
        blocks = shared + fresh
        self._readers.update(blocks)
        slots = [block * self._size + offset for block in blocks for offset in range(self._size)][:tokens]
        return Allocation(ids, blocks, slots, cached)

    def release(self, allocation: Allocation) -> None:
        """Remember the prompt's whole blocks, and free the others."""
        self._readers.subtract(allocation.blocks)
        for index, block in enumerate(allocation.blocks):
            prefix = allocation.prompt[: (index + 1) * self._size]
            whole = self._shares and len(prefix) == (index + 1) * self._size
            remembered = whole and self._known.setdefault(prefix, block) == block
            if not remembered and not self._readers[block]:
                self._free.append(block)
