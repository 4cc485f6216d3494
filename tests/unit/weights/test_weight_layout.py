"""Row order and rank cuts: every layout of queries, keys and values ends up the same, on any number of ranks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from text_generation_server.errors import UnsupportedModel
from text_generation_server.specs.names import QkvLayout
from text_generation_server.weights.layout import (
    Partition,
    half_split_order,
    head_places,
    heads_of,
    partition_of,
    qkv_places,
    qkv_sizes,
    up_places,
)

HEAD_DIM = 3


def stored(layout, q, k, v):
    """Tensors of a checkpoint from [heads, HEAD_DIM] each."""
    if layout is QkvLayout.SPLIT:
        return [t.flatten() for t in (q, k, v)]
    if layout is QkvLayout.CONCAT:
        return [torch.cat([q, k, v]).flatten()]
    if layout is QkvLayout.Q_KV:
        return [q.flatten(), torch.cat([k, v]).flatten()]
    groups = q.view(len(k), -1, HEAD_DIM)
    return [torch.cat([groups, k[:, None], v[:, None]], dim=1).flatten()]


@st.composite
def geometries(draw):
    """Key/value heads, queries a key, ranks that can divide them."""
    kv_heads, group = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    heads = kv_heads * group
    ranks = [n for n in range(1, heads + 1) if heads % n == 0 and (kv_heads % n == 0 or n % kv_heads == 0)]
    return heads, kv_heads, draw(st.sampled_from(ranks))


@pytest.mark.parametrize("layout", QkvLayout)
@given(geometry=geometries())
def test_ranks_hold_whole_heads_in_one_order(layout, geometry):
    heads, kv_heads, world_size = geometry
    q, k, v = torch.arange((heads + 2 * kv_heads) * HEAD_DIM).view(-1, HEAD_DIM).split([heads, kv_heads, kv_heads])
    tensors = stored(layout, q, k, v)
    assert qkv_sizes(layout, heads, kv_heads, HEAD_DIM) == [len(tensor) for tensor in tensors]
    for rank in range(world_size):
        mine = heads_of(heads, kv_heads, rank, world_size)
        places = qkv_places(layout, heads, kv_heads, HEAD_DIM, mine)
        got = [tensors[place.tensor][place.rows].view(-1, HEAD_DIM) for place in places]
        assert [len(part) for part in got] == [heads // world_size, len(mine.kv), len(mine.kv)]
        assert torch.equal(got[0], q[mine.query.start : mine.query.stop])
        assert torch.equal(got[1], k[mine.kv.start : mine.kv.stop])
        assert torch.equal(got[2], v[mine.kv.start : mine.kv.stop])
        group = heads // kv_heads
        assert {head // group for head in mine.query} == set(mine.kv)


@pytest.mark.parametrize("layout", QkvLayout)
@given(geometry=geometries(), padding=st.integers(1, 3))
def test_zeros_follow_each_head_of_each_rank(layout, geometry, padding):
    heads, kv_heads, world_size = geometry
    q, k, v = torch.arange((heads + 2 * kv_heads) * HEAD_DIM).view(-1, HEAD_DIM).split([heads, kv_heads, kv_heads])
    tensors = stored(layout, q, k, v)
    for rank in range(world_size):
        mine = heads_of(heads, kv_heads, rank, world_size)
        places = qkv_places(layout, heads, kv_heads, HEAD_DIM, mine, padded_dim=HEAD_DIM + padding)
        queries, keys = slice(mine.query.start, mine.query.stop), slice(mine.kv.start, mine.kv.stop)
        expected = torch.cat([q[queries], k[keys], v[keys]])
        assert torch.equal(torch.stack([tensors[place.tensor][place.rows] for place in places]), expected)
        assert {place.padded for place in places} == {HEAD_DIM + padding}
        columns = head_places(0, mine.query, HEAD_DIM, HEAD_DIM + padding)
        assert torch.equal(torch.stack([q.flatten()[place.rows] for place in columns]), expected[: len(mine.query)])


def test_interleaved_pairs_are_pulled_apart_within_each_head():
    order = half_split_order(4, 5)
    assert order.tolist() == [0, 2, 1, 3, 4]
    places = qkv_places(QkvLayout.CONCAT, 2, 1, 5, heads_of(2, 1, 0, 1), order)
    rows = [torch.arange(20)[place.rows].tolist() for place in places]
    assert rows == [[0, 2, 1, 3, 4, 5, 7, 6, 8, 9], [10, 12, 11, 13, 14], [15, 16, 17, 18, 19]]


def test_parts_may_be_aligned():
    assert [partition_of(30, rank, 3, alignment=8) for rank in range(3)] == [
        Partition(0, 16, 16),
        Partition(16, 30, 16),
        Partition(30, 30, 16),
    ]


@given(size=st.integers(1, 200), world_size=st.integers(1, 9))
def test_parts_cover_everything_once(size, world_size):
    parts = [partition_of(size, rank, world_size) for rank in range(world_size)]
    assert [row for part in parts for row in range(size)[part.rows]] == list(range(size))
    assert {part.padded for part in parts} == {-(-size // world_size)}


@pytest.mark.parametrize("tensors", [1, 2])
def test_gate_and_up_come_in_one_order(tensors):
    gate, up = torch.arange(10), torch.arange(10, 20)
    files = [gate, up] if tensors == 2 else [torch.cat([gate, up])]
    places = up_places(tensors, True, 10, partition_of(10, 1, 3))
    assert [files[place.tensor][place.rows].tolist() for place in places] == [[4, 5, 6, 7], [14, 15, 16, 17]]


def test_heads_that_ranks_cannot_divide_are_refused():
    with pytest.raises(UnsupportedModel, match="9 attention heads, which 2 shards cannot divide: use 1, 3 or 9"):
        heads_of(9, 3, 0, 2)


def test_keys_that_would_be_parted_from_their_queries_are_refused():
    with pytest.raises(UnsupportedModel, match="4 key/value heads, which 6 shards can neither divide nor copy"):
        heads_of(12, 4, 0, 6)
