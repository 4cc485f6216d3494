"""Which rows of a checkpoint's matrices a rank computes with, and in which order. Index arithmetic only.

Cutting whole heads for a rank and undoing a checkpoint's row order are both a choice of rows, so they are one index.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from text_generation_server.errors import UnsupportedModel
from text_generation_server.specs.names import QkvLayout

Rows = slice | Tensor
"""Rows of a matrix: a range where they lie together, otherwise their numbers [n] int64."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A rank's equal share of some things; the last ranks may hold fewer real ones, and zeros up to `padded`."""

    start: int
    stop: int
    padded: int

    @property
    def rows(self) -> slice:
        """The real ones."""
        return slice(self.start, self.stop)


def partition_of(size: int, rank: int, world_size: int, alignment: int = 1) -> Partition:
    """This rank's share of a dimension that may be padded with zeros: vocabulary, inner size of an MLP.

    Shares are a multiple of `alignment`.
    """
    padded = -(-size // (world_size * alignment)) * alignment
    return Partition(min(rank * padded, size), min((rank + 1) * padded, size), padded)


@dataclass(frozen=True, slots=True)
class Heads:
    """The attention heads of one rank, as numbers of the model's heads. Keys and values may be on several ranks."""

    query: range
    kv: range


def heads_of(
    heads: int, kv_heads: int, rank: int, world_size: int, names: tuple[str, str] = ("attention", "key/value")
) -> Heads:
    """This rank's heads. With fewer key/value heads than ranks, ranks hold copies. names: of both kinds, for messages.

    Raises:
        UnsupportedModel: the heads cannot be divided so that queries stay with their keys.
    """
    if heads % world_size:
        raise UnsupportedModel(
            f"the model has {heads} {names[0]} heads, which {world_size} shards cannot divide: use {_fitting(heads)}"
        )
    if max(kv_heads, world_size) % min(kv_heads, world_size):
        raise UnsupportedModel(
            f"the model has {kv_heads} {names[1]} heads, which {world_size} shards can neither divide nor copy evenly"
        )
    queries = heads // world_size
    kv = max(1, kv_heads // world_size)
    first_kv = rank * kv_heads // world_size
    return Heads(range(rank * queries, (rank + 1) * queries), range(first_kv, first_kv + kv))


def _fitting(heads: int) -> str:
    *others, last = [str(count) for count in range(1, 17) if heads % count == 0]
    return f"{', '.join(others)} or {last}" if others else last


@dataclass(frozen=True, slots=True)
class Place:
    """A piece of a fused matrix: some rows of the tensor with this number, with zeros behind up to `padded` rows.

    Or some columns, for a matrix that is cut along its inputs.
    """

    tensor: int
    rows: Rows
    padded: int


def qkv_sizes(layout: QkvLayout, heads: int, kv_heads: int, head_dim: int) -> list[int]:
    """Rows of each tensor."""
    q, kv = heads * head_dim, kv_heads * head_dim
    match layout:
        case QkvLayout.SPLIT:
            return [q, kv, kv]
        case QkvLayout.Q_KV:
            return [q, 2 * kv]
        case QkvLayout.CONCAT | QkvLayout.GROUPED:
            return [q + 2 * kv]


def qkv_places(
    layout: QkvLayout,
    heads: int,
    kv_heads: int,
    head_dim: int,
    mine: Heads,
    order: Tensor | None = None,
    padded_dim: int | None = None,
) -> list[Place]:
    """Where a rank's queries, keys and values are, in this order.

    order: [head_dim], which row of a head of queries or keys comes where; None to leave them as they are.
    padded_dim: rows that a head is to have, zeros behind; None for head_dim.
    """
    group = heads // kv_heads
    if layout is QkvLayout.SPLIT:
        blocks = [(0, list(mine.query)), (1, list(mine.kv)), (2, list(mine.kv))]
    elif layout is QkvLayout.Q_KV:
        blocks = [(0, list(mine.query)), (1, list(mine.kv)), (1, [kv_heads + n for n in mine.kv])]
    elif layout is QkvLayout.CONCAT:
        blocks = [(0, list(mine.query)), *((0, [first + n for n in mine.kv]) for first in (heads, heads + kv_heads))]
    else:
        queries = [h // group * (group + 2) + h % group for h in mine.query]
        blocks = [(0, queries), *((0, [n * (group + 2) + last for n in mine.kv]) for last in (group, group + 1))]
    orders = (order, order, None)
    return [
        place
        for (tensor, numbers), within in zip(blocks, orders, strict=True)
        for place in head_places(tensor, numbers, head_dim, padded_dim or head_dim, within)
    ]


def head_places(
    tensor: int, numbers: Sequence[int], head_dim: int, padded_dim: int, order: Tensor | None = None
) -> list[Place]:
    """Where heads with these numbers are: in one piece, or each by itself where zeros follow it."""
    if padded_dim == head_dim:
        return [Place(tensor, block_rows(numbers, head_dim, order), len(numbers) * head_dim)]
    return [Place(tensor, block_rows([number], head_dim, order), padded_dim) for number in numbers]


def up_places(tensors: int, gated: bool, size: int, mine: Partition) -> list[Place]:
    """Where a rank's part of an MLP's first projection is; gated: the gate's, then the rest's, in one tensor or two."""
    if not gated:
        return [Place(0, mine.rows, mine.padded)]
    second, offset = (1, 0) if tensors == 2 else (0, size)
    shifted = slice(mine.start + offset, mine.stop + offset)
    return [Place(0, mine.rows, mine.padded), Place(second, shifted, mine.padded)]


def block_rows(blocks: Sequence[int], size: int, order: Tensor | None = None) -> Rows:
    """The rows of blocks of `size` rows, in this order; `order` [size] is that within a block."""
    if order is None and list(blocks) == list(range(blocks[0], blocks[0] + len(blocks))):
        return slice(blocks[0] * size, (blocks[-1] + 1) * size)
    return (torch.tensor(blocks)[:, None] * size + (torch.arange(size) if order is None else order)).flatten()


def half_split_order(dim: int, head_dim: int) -> Tensor:
    """Rows of a head [head_dim] whose first `dim` are rotated in pairs (2i, 2i + 1), as pairs (i, i + dim/2).

    Reordering queries and keys alike changes no score, so that one rotation serves both conventions.
    """
    return torch.cat((torch.arange(0, dim, 2), torch.arange(1, dim, 2), torch.arange(dim, head_dim)))
