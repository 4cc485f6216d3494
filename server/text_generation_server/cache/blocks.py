"""Hands out cache slots to requests that bring none; knows nothing of what is stored in them.

A *block* is a run of `block_size` slots; requests get whole blocks (docs/protocol.md#slots).
"""

import numpy as np

from text_generation_server.errors import OutOfBlocks


class LocalBlocks:
    """The free blocks of a pool of `num_slots` slots. Not thread-safe: the engine thread owns it."""

    def __init__(self, num_slots: int, block_size: int) -> None:
        self.block_size = block_size
        self._num_blocks = num_slots // block_size
        # Popped from the end: ascending, so that a lone request's slots are contiguous and can be read as a view.
        self._free = list(range(self._num_blocks - 1, -1, -1))

    @property
    def free_tokens(self) -> int:
        """Tokens that could be allocated now."""
        return len(self._free) * self.block_size

    def acquire(self, tokens: int) -> tuple[int, ...]:
        """Slots for `tokens` positions, rounded up to whole blocks.

        Raises:
            OutOfBlocks: fewer slots are free than asked for; nothing was taken.
        """
        needed = -(-tokens // self.block_size)
        if needed > len(self._free):
            raise OutOfBlocks(
                f"the request needs {tokens} tokens of cache, {self.free_tokens} of "
                f"{self._num_blocks * self.block_size} are free: wait for running requests or ask for fewer new tokens"
            )
        kept = len(self._free) - needed
        blocks = np.array(self._free[kept:][::-1], dtype=np.int64)
        del self._free[kept:]
        return tuple((blocks[:, None] * self.block_size + np.arange(self.block_size)).ravel().tolist())

    def release(self, slots: tuple[int, ...]) -> None:
        """Give back exactly what one `acquire` returned."""
        firsts = np.array(slots[:: self.block_size][::-1], dtype=np.int64)
        self._free.extend((firsts // self.block_size).tolist())
