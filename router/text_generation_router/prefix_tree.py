"""A radix tree of prompts whose keys and values are in the cache, with the blocks that hold them.

Edges are runs of whole blocks. Knows neither requests nor how many blocks there are.
"""

from collections import OrderedDict


class Node:
    """A run of tokens after its parent's, and the blocks they are in. users: requests that hold it or a node below."""

    __slots__ = ("blocks", "children", "parent", "tokens", "users")

    def __init__(self, parent: "Node | None", tokens: tuple[int, ...], blocks: list[int], users: int = 0) -> None:
        self.parent = parent
        self.tokens = tokens
        self.blocks = blocks
        self.users = users
        self.children: dict[tuple[int, ...], Node] = {}  # by the tokens of the child's first block


class PrefixTree:
    """Finds the longest cached prefix of a prompt, and gives back blocks that nobody uses, least recently used first.

    unused_blocks: how many blocks `evict` could give back.
    Adapters change keys and values, so each has a tree of its own.
    """

    def __init__(self, block_size: int) -> None:
        self.unused_blocks = 0
        self._block_size = block_size
        self._roots: dict[str | None, Node] = {}
        self._adapters: dict[Node, str | None] = {}  # of the roots
        self._unused_leaves: OrderedDict[Node, None] = OrderedDict()  # in the order in which they were let go

    def find(self, adapter: str | None, tokens: tuple[int, ...]) -> tuple[Node, list[int]]:
        """The node where the longest cached prefix of `tokens` ends, and the blocks of that prefix."""
        node, _ = self._descend(adapter, tokens)
        return node, _path_blocks(node)

    def insert(self, adapter: str | None, tokens: tuple[int, ...], blocks: list[int]) -> tuple[Node, int]:
        """Add what is missing of `tokens`, which fill `blocks` exactly.

        Returns the last node and how many of the blocks were not needed, because their tokens were cached already.
        The tree owns the others from now on.
        """
        parent, matched = self._descend(adapter, tokens)
        known = matched // self._block_size
        if known == len(blocks):
            return parent, known
        self._unused_leaves.pop(parent, None)
        node = Node(parent, tokens[matched:], blocks[known:])
        parent.children[self._key(node.tokens)] = node
        self._unused_leaves[node] = None
        self.unused_blocks += len(node.blocks)
        return node, known

    def hold(self, node: Node) -> None:
        """Keep the node and all above it from being evicted."""
        self._unused_leaves.pop(node, None)
        above: Node | None = node
        while above is not None:
            if above.users == 0:
                self.unused_blocks -= len(above.blocks)
            above.users += 1
            above = above.parent

    def let_go(self, node: Node) -> None:
        """Undo one `hold`."""
        above: Node | None = node
        while above is not None:
            above.users -= 1
            if above.users == 0:
                self.unused_blocks += len(above.blocks)
            above = above.parent
        self._note_unused(node)

    def evict(self, count: int) -> list[int]:
        """Forget `count` unused blocks, or all there are if fewer, and return them."""
        evicted: list[int] = []
        while len(evicted) < count and self._unused_leaves:
            leaf = next(iter(self._unused_leaves))
            kept = max(len(leaf.blocks) - (count - len(evicted)), 0)
            evicted += leaf.blocks[kept:]
            self._cut(leaf, kept)
        self.unused_blocks -= len(evicted)
        return evicted

    def _cut(self, leaf: Node, kept: int) -> None:
        """Leave the first `kept` blocks of a leaf; without any it goes, which may make a leaf of its parent."""
        first_block = self._key(leaf.tokens)
        leaf.blocks = leaf.blocks[:kept]
        leaf.tokens = leaf.tokens[: kept * self._block_size]
        if kept:
            return
        del self._unused_leaves[leaf]
        if leaf.parent is not None:
            del leaf.parent.children[first_block]
            # A prefix that was shared goes to the end of the line: it outlives what hung on it.
            self._note_unused(leaf.parent)

    def _note_unused(self, node: Node) -> None:
        if node.users or node.children:
            return
        if node.parent is not None:
            self._unused_leaves[node] = None
        else:
            del self._roots[self._adapters.pop(node)]

    def _descend(self, adapter: str | None, tokens: tuple[int, ...]) -> tuple[Node, int]:
        """The node where the longest cached prefix ends, made by a split if need be, and the prefix's length."""
        node, matched = self._root(adapter), 0
        while (child := node.children.get(self._key(tokens[matched:]))) is not None:
            shared = self._shared_tokens(child.tokens, tokens, matched)
            matched += shared
            node = child if shared == len(child.tokens) else self._split(child, shared)
            if node is not child:
                break
        return node, matched

    def _root(self, adapter: str | None) -> Node:
        """An adapter's tree, which goes when nothing is in it and nobody uses it."""
        if adapter not in self._roots:
            self._roots[adapter] = root = Node(None, (), [])
            self._adapters[root] = adapter
        return self._roots[adapter]

    def _key(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        return tokens[: self._block_size]

    def _shared_tokens(self, edge: tuple[int, ...], tokens: tuple[int, ...], start: int) -> int:
        """How much of `edge` `tokens` repeat from `start` on, in whole blocks."""
        rest = tokens[start : start + len(edge)]
        if rest == edge:
            return len(edge)
        same = next((i for i, (a, b) in enumerate(zip(edge, rest, strict=False)) if a != b), len(rest))
        return same - same % self._block_size

    def _split(self, node: Node, length: int) -> Node:
        """Part the first `length` tokens of a node from the rest, and return the new node that holds them."""
        blocks = length // self._block_size
        upper = Node(node.parent, node.tokens[:length], node.blocks[:blocks], node.users)
        if node.parent is not None:
            node.parent.children[self._key(upper.tokens)] = upper
        node.parent, node.tokens, node.blocks = upper, node.tokens[length:], node.blocks[blocks:]
        upper.children[self._key(node.tokens)] = node
        return upper


def _path_blocks(node: Node) -> list[int]:
    runs = []
    above: Node | None = node
    while above is not None:
        runs.append(above.blocks)
        above = above.parent
    return [block for run in reversed(runs) for block in run]
