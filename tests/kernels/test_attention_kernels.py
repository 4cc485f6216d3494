"""Attention kernels against plain attention in float32, and their backend against torch's through the seam."""

import random
from dataclasses import replace

import pytest
import torch
from triton.runtime import interpreter

from text_generation_server.attention.base import AttentionShape, AttentionVariant, LayerAttention
from text_generation_server.attention.gathered import GatheredPlan, RelativeBias
from text_generation_server.attention.sdpa import SdpaAttention
from text_generation_server.attention.triton import TritonAttention
from text_generation_server.attention.viewing import ViewingAttention
from text_generation_server.cache.layout import RowLayout
from text_generation_server.cache.paged import PagedCache, PagedSpec
from text_generation_server.kernels.attention import sizes
from text_generation_server.kernels.attention.decode import arrivals, decode
from text_generation_server.kernels.attention.prefill import blocks_of, prefill
from text_generation_server.kernels.attention.scores import Rule
from text_generation_server.kernels.attention.sizes import KVSplit, PrefillTile

HEADS = {"one each": (2, 2), "groups": (6, 2), "many of one": (18, 1)}
VARIANTS = {
    "plain": {},
    "window": {"window": 5},
    "wide window": {"window": 33},
    "slopes": {"slopes": True},
    "soft cap": {"softcap": 2.0},
    "sinks": {"sinks": True},
    "all": {"window": 20, "slopes": True, "softcap": 3.0, "sinks": True},
}
SCALE = 0.2
TOLERANCE = {torch.float16: 3e-3, torch.float32: 1e-5}
TILE = PrefillTile(rows=16, keys=16, stages=2, warps=4)


@pytest.fixture(autouse=True)
def dynamic_ranges(monkeypatch):
    """Triton 3.6 reads a loop's bounds in its interpreter in a way that NumPy 2.4 refuses."""
    patch = interpreter._patch_lang_tensor

    def patched(tensor, scope):
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patched)


class Rows:
    """Some rows in a shuffled pool, the slots that nobody wrote filled with NaN."""

    def __init__(self, device, heads, head_dim, query_lens, seq_lens, dtype=torch.float16, held=None):
        generator = torch.Generator().manual_seed(0)
        self.heads, self.kv_heads = heads
        self.query_lens, self.seq_lens = query_lens, seq_lens
        count, longest = len(seq_lens), max(seq_lens) + 3
        order = torch.randperm((count + 2) * longest, generator=generator)
        self.table = order.view(count + 2, longest).to(device)
        self.rows = [*range(1, count + 1)][::-1]
        self.kv = torch.full((len(order), 2, self.kv_heads, head_dim), torch.nan, dtype=dtype)
        held = held or dtype
        for row, keys in zip(self.rows, seq_lens, strict=True):
            drawn = torch.randn(keys, 2, self.kv_heads, head_dim, generator=generator)
            self.kv[self.table[row, :keys].cpu()] = drawn.to(held).to(dtype)
        self.kv = self.kv.to(held).to(device)
        self.arrived = arrivals(device)
        self.sinks = torch.linspace(-1, 4, self.heads, device=device)
        # Queries are a part of a wider matrix, as they come out of one projection with keys and values.
        wide = torch.randn(sum(query_lens), self.heads + 1, head_dim, generator=generator)
        self.q = wide.to(device, dtype)[:, : self.heads]

    def variant(self, window=None, slopes=False, softcap=None, sinks=False):
        alibi = tuple(0.5 / (1 + head) for head in range(self.heads)) if slopes else None
        return AttentionVariant(window, alibi, softcap, sinks)

    def sinks_of(self, variant):
        return self.sinks if variant is not None and variant.sinks else None

    def expected(self, variant):
        """Attention of every token, in float32."""
        out, starts = [], [sum(self.query_lens[:i]) for i in range(len(self.rows))]
        for row, start, queries, keys in zip(self.rows, starts, self.query_lens, self.seq_lens, strict=True):
            held = self.kv[self.table[row, :keys]].float().repeat_interleave(self.heads // self.kv_heads, 2)
            scores = torch.einsum("qhd,khd->hqk", self.q[start : start + queries].float(), held[:, 0]) * SCALE
            if variant.softcap is not None:
                scores = variant.softcap * torch.tanh(scores / variant.softcap)
            positions = torch.arange(keys, device=self.q.device)
            distance = positions[keys - queries :, None] - positions
            if variant.alibi is not None:
                scores -= torch.tensor(variant.alibi, device=self.q.device)[:, None, None] * distance
            hidden = (distance < 0) | (distance >= (variant.window or keys))
            scores = scores.masked_fill(hidden, -torch.inf)
            if variant.sinks:
                scores = torch.cat((scores, self.sinks[:, None, None].expand(-1, queries, 1)), 2)
            weights = scores.softmax(-1)[..., :keys]
            out.append(torch.einsum("hqk,khd->qhd", weights, held[:, 1]).flatten(1))
        return torch.cat(out)

    def decoded(self, variant, split):
        device = self.q.device
        rows, seq_lens = torch.tensor(self.rows, device=device), torch.tensor(self.seq_lens, device=device)
        scored = rule(variant, device), SCALE, split, self.arrived
        return decode(self.q, self.kv, rows, seq_lens, self.table, *scored, sinks=self.sinks_of(variant))

    def prefilled(self, variant, tile=TILE, programs=3, scored=None):
        out = self.q.new_empty(len(self.q), self.heads * self.q.shape[2])
        starts = [sum(self.query_lens[:i]) for i in range(len(self.rows))]
        rows = zip(self.rows, starts, self.query_lens, self.seq_lens, strict=True)
        blocks = blocks_of(rows, self.heads // self.kv_heads, tile.rows)
        count = torch.tensor([len(blocks)], device=self.q.device)
        # Lines behind the last are not for anybody, and fewer programs than blocks do all of them.
        blocks = torch.tensor([*blocks, *[(0,) * 5] * 2], device=self.q.device)
        where = blocks, count, self.table, scored or rule(variant, self.q.device)
        prefill(self.q, self.kv, *where, SCALE, tile, programs, out, self.sinks_of(variant))
        return out


def rule(variant, device):
    return Rule.of(variant.window, variant.alibi, variant.softcap, device)


def assert_near(got, expected):
    tolerance = TOLERANCE[got.dtype]
    torch.testing.assert_close(got.float(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("split", (KVSplit(1, 1), KVSplit(3, 1)), ids=("whole", "split"))
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
def test_decode(device, heads, options, split):
    rows = Rows(device, heads, 16, [1, 1, 1], [1, 700, 37])
    variant = rows.variant(**options)
    assert_near(rows.decoded(variant, split), rows.expected(variant))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("head_dim", (24, 64, 80))
@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
def test_decode_of_other_heads(device, heads, head_dim, dtype):
    rows = Rows(device, heads, head_dim, [1, 1], [300, 5], dtype)
    variant = rows.variant()
    assert_near(rows.decoded(variant, KVSplit(2, 1)), rows.expected(variant))


def twin_of(rows, bias, causal):
    """What torch's operators make of the same numbers, of which gathered slots are attended to."""
    narrow = None if rows.kv.dtype == rows.q.dtype else rows.kv.dtype
    shape = 1, rows.kv_heads, rows.kv.shape[-1]
    spec = PagedSpec(*shape, rows.q.dtype, torch.device("cpu"), slot_major=True, narrow=narrow)
    cache = spec.allocate(len(rows.kv), 1, 1)
    cache.layer(0).copy_(rows.kv)
    plan = GatheredPlan(rows.table.cpu(), rows.rows, rows.query_lens, rows.seq_lens, bias, causal)
    return plan.run(rows.q.cpu(), LayerAttention(0, 0, SCALE), cache).float()


def drawn_bias(heads, most=20):
    """A number for each distance up to so many, and one for those beyond, in both directions."""
    return RelativeBias(torch.randn(heads, 2 * most + 1, generator=torch.Generator().manual_seed(1)))


NARROW = torch.float8_e4m3fn, torch.float8_e5m2


@pytest.mark.parametrize("held", (None, *NARROW), ids=str)
def test_decode_with_biases_by_distance(device, held):
    rows, bias = Rows(device, (3, 3), 16, [1, 1, 1], [1, 300, 37], held=held), drawn_bias(3)
    scored = Rule.of(None, None, None, device, bias.before.to(device)), SCALE, KVSplit(3, 1), rows.arrived
    numbers = (torch.tensor(of_rows, device=device) for of_rows in (rows.rows, rows.seq_lens))
    got = decode(rows.q, rows.kv, *numbers, rows.table, *scored)
    assert_near(got.cpu(), twin_of(rows, bias, causal=True))


@pytest.mark.parametrize(("biased", "held"), [(True, None), (False, None), (True, NARROW[0])])
def test_an_encoder_s_tokens_see_each_other(device, biased, held):
    """Those behind them too, with biases by distance."""
    lens, bias = [37, 1, 70], drawn_bias(3) if biased else None
    rows = Rows(device, (3, 3), 16, lens, lens, held=held)
    biases = None if bias is None else bias.before.to(device)
    got = rows.prefilled(None, scored=Rule.of(None, None, None, device, biases, causal=False))
    assert_near(got.cpu(), twin_of(rows, bias, causal=False))


def test_heads_may_lie_apart(device):
    """As transformers' models make queries, a head's tokens together."""
    rows = Rows(device, (6, 2), 16, [1, 5], [20, 40])
    variant = rows.variant()
    rows.q = rows.q.transpose(0, 1).contiguous().transpose(0, 1)
    assert_near(rows.prefilled(variant), rows.expected(variant))
    rows = Rows(device, (6, 2), 16, [1, 1], [20, 40])
    rows.q = rows.q.transpose(0, 1).contiguous().transpose(0, 1)
    assert_near(rows.decoded(variant, KVSplit(1, 1)), rows.expected(variant))


def test_decode_in_bfloat16(device):
    rows = Rows(device, (2, 2), 64, [1], [40], torch.bfloat16)
    got, expected = rows.decoded(rows.variant(), KVSplit(1, 1)), rows.expected(rows.variant())
    torch.testing.assert_close(got.float(), expected, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
def test_more_parts_than_are_merged_at_a_time(device, heads, monkeypatch):
    monkeypatch.setattr(sizes, "MERGED_NUMBERS", 64)
    rows = Rows(device, heads, 16, [1, 1], [2500, 1100])
    variant = rows.variant(slopes=True)
    first = rows.decoded(variant, KVSplit(5, 1))
    assert_near(first, rows.expected(variant))
    # What a launch leaves behind must not disturb the next.
    assert torch.equal(first, rows.decoded(variant, KVSplit(5, 1)))


def test_a_row_of_few_keys_is_not_split(device):
    """Partial results have another rounding; a short row's are the same whatever it is split into."""
    rows = Rows(device, (2, 2), 16, [1], [30])
    assert torch.equal(*(rows.decoded(rows.variant(), KVSplit(parts, 32)) for parts in (1, 4)))


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
def test_prefill(device, heads, options):
    """A single token, a chunk after cached keys, and a prompt."""
    rows = Rows(device, heads, 16, [1, 7, 37], [50, 90, 37])
    variant = rows.variant(**options)
    assert_near(rows.prefilled(variant), rows.expected(variant))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("head_dim", (24, 64, 80))
def test_prefill_of_other_heads(device, head_dim, dtype):
    rows = Rows(device, (6, 2), head_dim, [20, 3], [20, 40], dtype)
    variant = rows.variant()
    assert_near(rows.prefilled(variant, PrefillTile.of(head_dim, dtype)), rows.expected(variant))


def test_long_blocks_come_first():
    blocks = blocks_of([(4, 0, 40, 40), (2, 40, 1, 90)], group=1, size=16)
    assert blocks == [(2, 40, 1, 90, 0), (4, 0, 40, 40, 32), (4, 0, 40, 40, 16), (4, 0, 40, 40, 0)]


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float32), ids=str)
@pytest.mark.parametrize("held", NARROW, ids=str)
@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
def test_a_cache_of_8_bits(device, heads, held, dtype):
    rows = Rows(device, heads, 24, [1, 1], [200, 5], dtype, held)
    variant = rows.variant(window=150, softcap=2.0)
    tolerance = {"atol": 1e-2, "rtol": 1e-2} if dtype is torch.bfloat16 else {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(rows.decoded(variant, KVSplit(2, 1)).float(), rows.expected(variant), **tolerance)
    rows = Rows(device, heads, 24, [20, 3], [20, 40], dtype, held)
    torch.testing.assert_close(rows.prefilled(variant).float(), rows.expected(variant), **tolerance)


LAYOUTS = {
    "prompt": ([40], [40]),
    "chunk": ([17], [60]),
    "decode": ([1, 1, 1], [7, 1, 90]),
    "mixed": ([1, 20, 1, 2], [90, 20, 12, 30]),
}


def attended(made, shape, query_lens, seq_lens, replayed=False, tokens=0):
    """Output of a backend for drawn numbers that are the same for every one."""
    state = replace(shape.state, slot_major=made.slot_major)
    backend, cache = made(replace(shape, state=state)), PagedCache(state, len(seq_lens) * max(seq_lens))
    order = random.Random(0).sample(range(cache.num_slots), cache.num_slots)
    table = torch.tensor(order, device=state.device).view(len(seq_lens), -1)
    generator = torch.Generator().manual_seed(0)
    for place in (cache.keys(0), cache.values(0)):
        place.copy_(torch.randn(place.shape, generator=generator))
    q = torch.randn(sum(query_lens), shape.heads, state.head_dim, generator=generator).to(state.device, state.dtype)
    layout = RowLayout.of(list(range(len(seq_lens))), query_lens, seq_lens, table)
    plan = backend.plan(layout)
    if replayed:
        (plan,) = backend.decode_plans(layout.device_rows, layout.device_seq_lens, table)
        plan.prepare(seq_lens)
        assert plan.suits(seq_lens)
    sinks = torch.linspace(-1, 3, shape.heads, device=state.device)
    layers = [
        LayerAttention(0, at, SCALE, sinks=sinks if variant.sinks else None)
        for at, variant in enumerate(shape.variants)
    ]
    if not tokens:
        return [plan.run(q, layer, cache) for layer in layers]
    padded = torch.cat((q, q.new_full((tokens - len(q), *q.shape[1:]), 7.0)))
    answers = []
    for plan in backend.token_plans(tokens, table):
        if plan.suits(query_lens, seq_lens):
            # A step before this one leaves nothing behind.
            plan.prepare(layout.rows[::-1], query_lens[::-1], seq_lens[::-1])
            plan.run(padded, layers[0], cache)
            plan.prepare(layout.rows, query_lens, seq_lens)
            answers.append([plan.run(padded, layer, cache)[: len(q)].clone() for layer in layers])
            assert plan.run(padded, layers[0], cache).isfinite().all()
    assert len(answers) == (1 if min(query_lens) == 1 else 2)
    return [sum(each) / len(answers) for each in zip(*answers, strict=True)]


SHAPE_VARIANTS = (
    AttentionVariant(),
    AttentionVariant(window=9, sinks=True),
    AttentionVariant(alibi=(0.5, 0.25, 0.1, 0.05)),
)


def assert_agrees(device, layout, **options):
    shape = AttentionShape(SHAPE_VARIANTS, 4, PagedSpec(1, 2, 16, torch.float32, device))
    ours = attended(TritonAttention, shape, *layout, **options)
    for got, expected in zip(ours, attended(SdpaAttention, shape, *layout), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_the_backend_agrees_with_torch(device, layout):
    assert_agrees(device, layout)


def test_single_tokens_by_themselves_agree_with_the_whole_step(device):
    """Of a step whose prompts somebody else sees to; their answers are left alone."""
    shape = AttentionShape((AttentionVariant(),), 4, PagedSpec(1, 2, 16, torch.float32, device, slot_major=True))
    backend, (query_lens, seq_lens) = TritonAttention(shape), LAYOUTS["mixed"]
    table = torch.arange(4 * 90, device=device).view(4, -1)
    layout = RowLayout.of([3, 1, 0, 2], query_lens, seq_lens, table)
    cache, layer = PagedCache(shape.state, table.numel()), LayerAttention(0, 0, SCALE)
    for place in (cache.keys(0), cache.values(0)):
        place.normal_()
    q = torch.randn(sum(query_lens), 4, 16, device=device)
    whole = backend.plan(layout).run(q, layer, cache)
    got = backend.single_tokens(layout).write(q, layer, cache, torch.zeros_like(whole))
    expected = torch.zeros_like(whole)
    expected[[0, 21]] = whole[[0, 21]]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_a_replayed_step_agrees_with_torch(device):
    assert_agrees(device, LAYOUTS["decode"], replayed=True)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_replayed_step_of_some_tokens_agrees_with_torch(device, layout):
    assert_agrees(device, layout, tokens=48)


def test_a_plan_of_tokens_suits_up_to_so_many_scores(device):
    shape = AttentionShape((AttentionVariant(),), 4, PagedSpec(1, 2, 16, torch.float32, device))
    table = torch.zeros(2, 64, dtype=torch.int64, device=device)
    apart, with_singles = TritonAttention(shape).token_plans(48, table, most_scores=200)
    assert apart.suits([4, 10], [25, 10]) and with_singles.suits([1, 10], [900, 20])
    assert not apart.suits([4, 10], [26, 10]) and not with_singles.suits([1, 10], [1, 21])
    assert not apart.suits([1, 4], [1, 4])


def test_what_it_cannot_serve():
    state = PagedSpec(1, 2, 16, torch.float32, torch.device("cpu"))
    assert TritonAttention.why_not(AttentionShape((), 2, state)) == "it needs a CUDA device, not cpu"


@pytest.mark.parametrize("singles", [False, True])
def test_tokens_that_see_windows_of_a_list(monkeypatch, device, singles):
    """As torch's operators say: tokens that see nothing, the same, another count, a window that begins elsewhere."""
    monkeypatch.setattr(TritonAttention, "why_not", lambda shape: None)
    state = PagedSpec(1, 2, 16, torch.float32, device, slot_major=True)
    ours, cache = ViewingAttention(state, 6), PagedCache(state, 70)
    monkeypatch.undo()
    theirs = ViewingAttention(replace(state, device=torch.device("cpu")), 6)
    cache.layer(0).normal_()
    table = torch.randperm(70, device=device)[:60].unfold(0, 40, 1)
    rows = torch.tensor([0] * 13 + [3] * 4, device=device)
    counts = torch.tensor([0, 0] + [33] * 11 + [40, 5, 0, 0], device=device)
    q = torch.randn(17, 6, 16, device=device)
    layer = LayerAttention(0, 0, SCALE)
    expected = theirs.plan(table, rows, counts, singles).run(q, layer, cache)
    assert not expected[counts == 0].any() and expected[counts > 0].all()
    got = ours.plan(table, rows, counts, singles).run(q, layer, cache)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0.0)
