"""What queries of a block get, whatever backend computes the others and in whichever order the cache is."""

from dataclasses import dataclass

import pytest
import torch

from text_generation_server.attention.base import AttentionVariant, LayerAttention
from text_generation_server.attention.blockwise import BlockwisePlan
from text_generation_server.cache.layout import Block, RowLayout
from text_generation_server.cache.paged import PagedCache, PagedSpec

HEADS, KV_HEADS, DIM, SCALE = 4, 2, 8, 0.4


@dataclass
class Elsewhere:
    """A backend's plan: what it has is told apart from what is computed anew."""

    def run(self, q, layer, cache):
        return torch.full((len(q), HEADS * DIM), 7.0)


def seen(q, keys, values, first, oldest, window, softcap):
    """One query after the other: [t, H · d] for queries from position `first` on, of keys from `oldest` on."""
    found = []
    for at, query in enumerate(q, first):
        visible = [key for key in range(len(keys)) if window is None or oldest + key > at - window]
        heads = []
        for head, one in enumerate(query):
            mine = head * KV_HEADS // HEADS
            scores = keys[visible, mine] @ one * SCALE
            scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
            heads.append(scores.softmax(0) @ values[visible, mine])
        found.append(torch.cat(heads))
    return torch.stack(found)


@pytest.mark.parametrize("narrow", [None, torch.float8_e4m3fn])
@pytest.mark.parametrize("slot_major", [False, True])
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (4, None), (3, 2.0)])
def test_a_block_sees_all_of_itself_and_what_is_before_it(slot_major, window, softcap, narrow):
    torch.manual_seed(0)
    spec = PagedSpec(1, KV_HEADS, DIM, torch.float32, torch.device("cpu"), slot_major=slot_major, narrow=narrow)
    cache, kv = PagedCache(spec, 30), torch.randn(12, 2 * KV_HEADS, DIM)
    slots = torch.randperm(30)[:12]
    cache.write(0, slots, kv)
    kv = kv if narrow is None else kv.to(narrow).float()
    table = torch.zeros(3, 12, dtype=torch.int64)
    table[2] = slots
    # Two rows: one token of row 1, and positions 4 to 11 of row 2, whose block of 3 to 9 was begun before.
    layout = RowLayout.of([1, 2], [1, 8], [5, 12], table, [Block(1, 3, 10)])
    q = torch.randn(9, HEADS, DIM)
    plan = BlockwisePlan(Elsewhere(), layout, [AttentionVariant(window, None, softcap)])
    out = plan.run(q, LayerAttention(0, 0, SCALE), cache)
    oldest = 0 if window is None else 4 - window + 1
    keys, values = kv[oldest:10].split(KV_HEADS, 1)
    torch.testing.assert_close(out[1:7], seen(q[1:7], keys, values, 4, oldest, window, softcap))
    assert (out[[0, 7, 8]] == 7.0).all()
