"""The gathering attention against scores computed one by one in float64: long prompts, windows, biases, many keys."""

import math
import random

import pytest
import torch

from text_generation_server.attention.base import (
    AttentionShape,
    AttentionVariant,
    LayerAttention,
    create_backend,
)
from text_generation_server.attention.sdpa import MANY_KEYS, QUERY_BLOCK
from text_generation_server.cache.layout import RowLayout
from text_generation_server.cache.paged import PagedCache, PagedSpec
from text_generation_server.errors import UnsupportedModel

KV_HEADS, GROUP, HEAD_DIM = 2, 3, 8
STATE = PagedSpec(1, KV_HEADS, HEAD_DIM, torch.float32, torch.device("cpu"))
VARIANTS = {
    "plain": AttentionVariant(),
    "window": AttentionVariant(window=5),
    "wide window": AttentionVariant(window=300),
    "alibi": AttentionVariant(alibi=(0.5, 0.25, 0.125, 0.0625, 0.03, 0.01)),
    "sinks": AttentionVariant(sinks=True),
    "sinks, window": AttentionVariant(window=300, sinks=True),
}
SINKS = torch.linspace(-1, 3, KV_HEADS * GROUP)


def one_query(q, keys, values, variant, scale):
    """[H, d] at the last of the positions of keys [S, K, d]."""
    seen = keys.shape[0] if variant.window is None else min(variant.window, keys.shape[0])
    keys, values = (t[-seen:].double().repeat_interleave(GROUP, dim=1) for t in (keys, values))
    scores = torch.einsum("hd,shd->hs", q.double(), keys) * scale
    if variant.alibi is not None:
        distances = torch.arange(seen - 1, -1, -1, dtype=torch.float64)
        scores -= torch.tensor(variant.alibi, dtype=torch.float64)[:, None] * distances
    if variant.sinks:
        scores = torch.cat((scores, SINKS.double()[:, None]), 1)
    return torch.einsum("hs,shd->hd", scores.softmax(-1)[:, :seen], values).flatten().float()


def sdpa(*variants):
    return create_backend("sdpa", AttentionShape(variants, KV_HEADS * GROUP, STATE))


def attend_and_check(variant, query_lens, seq_lens):
    """Rows whose first keys are in the cache already; checks every query and every written slot."""
    torch.manual_seed(0)
    rows, longest, total = len(seq_lens), max(seq_lens), sum(query_lens)
    order = random.Random(0).sample(range(rows * longest), rows * longest)
    layout = RowLayout.of(list(range(rows)), query_lens, seq_lens, torch.tensor(order).view(rows, longest))
    cache = PagedCache(STATE, rows * longest)
    cache.layer(0).fill_(torch.nan)
    history = torch.randn(rows, longest, 2 * KV_HEADS, HEAD_DIM)
    for row, (count, kv_len) in enumerate(zip(query_lens, seq_lens, strict=True)):
        cached = layout.block_table[row, : kv_len - count]
        cache.layer(0)[:, cached] = history[row, : kv_len - count].transpose(0, 1)
    q = torch.randn(total, KV_HEADS * GROUP, HEAD_DIM)
    computed = zip(history, query_lens, seq_lens, strict=True)
    kv = torch.cat([row[kv_len - count : kv_len] for row, count, kv_len in computed])
    scale = 1 / math.sqrt(HEAD_DIM)
    computed = zip(layout.block_table, query_lens, seq_lens, strict=True)
    cache.write(0, torch.cat([slots[kv_len - count : kv_len] for slots, count, kv_len in computed]), kv)
    layer = LayerAttention(0, 0, scale, sinks=SINKS if variant.sinks else None)
    out = sdpa(variant).plan(layout).run(q, layer, cache)
    at = 0
    for row, (count, kv_len) in enumerate(zip(query_lens, seq_lens, strict=True)):
        keys, values = history[row, :, :KV_HEADS], history[row, :, KV_HEADS:]
        written = layout.block_table[row, :kv_len]
        assert torch.equal(cache.keys(0)[written], keys[:kv_len])
        assert torch.equal(cache.values(0)[written], values[:kv_len])
        for end in range(kv_len - count + 1, kv_len + 1):
            expected = one_query(q[at], keys[:end], values[:end], variant, scale)
            torch.testing.assert_close(out[at], expected, atol=2e-6, rtol=1e-5)
            at += 1


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
class TestLayouts:
    def test_a_prompt_of_several_query_blocks(self, variant):
        attend_and_check(variant, [2 * QUERY_BLOCK + 3], [2 * QUERY_BLOCK + 3])

    def test_a_chunk_after_cached_keys(self, variant):
        attend_and_check(variant, [QUERY_BLOCK + 9], [QUERY_BLOCK + 400])

    def test_decoding_rows_of_different_lengths(self, variant):
        attend_and_check(variant, [1, 1, 1, 1], [7, 1, 30, 8])

    def test_decoding_rows_of_one_length(self, variant):
        attend_and_check(variant, [1, 1], [9, 9])

    def test_decoding_over_many_keys(self, variant):
        attend_and_check(variant, [1, 1, 1], [MANY_KEYS // 2, 100, MANY_KEYS // 2 + 1])

    def test_prompts_between_decoding_rows(self, variant):
        attend_and_check(variant, [1, 6, 1, 2, 1], [4, 6, 12, 11, 1])


def test_variants_are_planned_together():
    """Layers of two variants share a plan, and each sees what its variant lets it see."""
    variants = [AttentionVariant(), AttentionVariant(window=2)]
    layout = RowLayout.of([0], [1], [4], torch.arange(4)[None])
    cache = PagedCache(STATE, 4)
    values = torch.arange(4.0)[:, None, None].expand(4, KV_HEADS, HEAD_DIM)
    cache.layer(0).zero_()
    cache.layer(0)[KV_HEADS:] = values.transpose(0, 1)
    plan = sdpa(*variants).plan(layout)
    q = torch.zeros(1, KV_HEADS * GROUP, HEAD_DIM)
    kv = torch.cat([torch.zeros(1, KV_HEADS, HEAD_DIM), values[3:]], dim=1)
    cache.write(0, torch.tensor([3]), kv)
    means = [plan.run(q, LayerAttention(0, variant, 1.0), cache)[0, 0].item() for variant in (0, 1)]
    assert means == pytest.approx([1.5, 2.5])


def test_an_unknown_backend_is_refused_by_name():
    with pytest.raises(UnsupportedModel, match="'magic', expected auto or classic or flashinfer or triton or sdpa"):
        create_backend("magic", AttentionShape((), 1, STATE))


def test_a_backend_that_cannot_serve_a_model_says_why():
    with pytest.raises(UnsupportedModel, match="flashinfer cannot serve this model: it needs a CUDA device, not cpu"):
        create_backend("flashinfer", AttentionShape((AttentionVariant(),), 1, STATE))


def test_the_first_backend_that_can_is_chosen():
    assert create_backend("auto", AttentionShape((AttentionVariant(),), 1, STATE)).name == "sdpa"
