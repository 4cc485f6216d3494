"""Hands out cache blocks and takes them back; with prefix caching, prompts share the blocks they begin with.

Block 0 is never handed out: probes name it, and shards may overwrite it. Knows neither requests nor what is in a block.
"""

from dataclasses import dataclass

from text_generation_router.prefix_tree import Node, PrefixTree


@dataclass(slots=True)
class Allocation:
    """The cache space of a request.

    blocks: of positions 0, 1, … in order; slots: the token slot of each position. cache_len: leading positions
    whose keys and values are there already. own: the blocks that go back when the request ends; the others are the
    tree's, and `node` keeps them.
    """

    blocks: list[int]
    slots: list[int]
    cache_len: int
    own: list[int]
    prompt: tuple[int, ...]
    adapter: str | None
    node: Node | None


class BlockAllocator:
    """`num_blocks` blocks of `block_size` tokens, of which block 0 is left alone."""

    def __init__(self, num_blocks: int, block_size: int, prefix_caching: bool) -> None:
        self.block_size = block_size
        self.usable_blocks = num_blocks - 1
        # A cache may have millions of blocks: only those that have come back are listed, the others are a number.
        self._fresh = 1
        self._returned: list[int] = []
        self._tree = PrefixTree(block_size) if prefix_caching else None

    @property
    def used_blocks(self) -> int:
        """Blocks that cannot be had before a running request ends."""
        return self.usable_blocks - self._free_blocks - self.cached_blocks

    @property
    def cached_blocks(self) -> int:
        """Blocks that hold prompts of requests gone by, and go when others need them."""
        return 0 if self._tree is None else self._tree.unused_blocks

    def allocate(
        self, num_tokens: int, prompt: tuple[int, ...], adapter: str | None, reuse: bool = True
    ) -> Allocation | None:
        """Room for `num_tokens` positions of a request with this prompt, or None if there is not enough now.

        reuse: take cached blocks for the prompt's beginning; at least its last token is always left to compute.
        """
        node, cached = None, list[int]()
        if self._tree is not None:
            node, cached = self._tree.find(adapter, prompt[:-1] if reuse else ())
            self._tree.hold(node)
        needed = -(-num_tokens // self.block_size) - len(cached)
        if needed > self._free_blocks + self.cached_blocks:
            if self._tree is not None and node is not None:
                self._tree.let_go(node)
            return None
        own = self._take(needed)
        blocks = cached + own
        return Allocation(
            blocks, self._slots(blocks, num_tokens), len(cached) * self.block_size, own, prompt, adapter, node
        )

    def prompt_computed(self, allocation: Allocation) -> None:
        """Let others share the prompt: its keys and values are in the cache now."""
        full = len(allocation.prompt) // self.block_size
        if self._tree is None or allocation.node is None or full == 0:
            return
        blocks = allocation.blocks[:full]
        node, known = self._tree.insert(allocation.adapter, allocation.prompt[: full * self.block_size], blocks)
        if known == full:
            return
        self._tree.hold(node)
        self._tree.let_go(allocation.node)
        given = set(blocks[known:])
        allocation.node = node
        allocation.own = [block for block in allocation.own if block not in given]

    def release(self, allocation: Allocation) -> None:
        """Take back the space of a request that no shard will write for any more."""
        self._returned += reversed(allocation.own)
        allocation.own = []
        if self._tree is not None and allocation.node is not None:
            self._tree.let_go(allocation.node)
            allocation.node = None

    @property
    def _free_blocks(self) -> int:
        return len(self._returned) + self.usable_blocks + 1 - self._fresh

    def _take(self, count: int) -> list[int]:
        """The last to come back first, then those that nobody has had."""
        if self._tree is not None and count > self._free_blocks:
            self._returned += self._tree.evict(count - self._free_blocks)
        reused = min(count, len(self._returned))
        taken = self._returned[len(self._returned) - reused :][::-1]
        del self._returned[len(self._returned) - reused :]
        end = self._fresh + count - reused
        taken += range(self._fresh, end)
        self._fresh = end
        return taken

    def _slots(self, blocks: list[int], num_tokens: int) -> list[int]:
        size = self.block_size
        if size == 1:
            return list(blocks)
        return [slot for block in blocks for slot in range(block * size, (block + 1) * size)][:num_tokens]
