"""FlashInfer's attention against torch's own on the same CUDA device: written slots, and what every query sees."""

import random

import pytest
import torch

from oracles.build import ANSWER_LEN, build
from oracles.case import LLAMA, Case
from oracles.driver import Driver
from text_generation_server.attention import flashinfer
from text_generation_server.attention.base import (
    AttentionShape,
    AttentionVariant,
    LayerAttention,
    create_backend,
)
from text_generation_server.cache.layout import RowLayout
from text_generation_server.cache.paged import PagedCache, PagedSpec
from text_generation_server.distributed.group import SingleRank
from text_generation_server.models.loading import ModelOptions, load_model

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

CUDA = torch.device("cuda")
LAYOUTS = {
    "prompt": ([300], [300]),
    "prompts": ([17, 1, 130], [17, 1, 130]),
    "chunk": ([40], [333]),
    "decode": ([1, 1, 1], [7, 1, 260]),
    "decode-long": ([1] * 32, [521] * 32),
    "mixed": ([1, 60, 1], [90, 60, 12]),
    "apart": ([60, 1, 40, 1], [90, 30, 40, 12]),
}
HEADS = {"multi-head": (4, 4), "grouped": (8, 2), "odd group": (6, 2), "one key head": (8, 1)}


def attended(name, variant, heads, layout_of, slot_major, narrow=None):
    """Output, and the keys and values that were left in the slots."""
    (query_lens, seq_lens), (query_heads, kv_heads) = layout_of, heads
    state = PagedSpec(1, kv_heads, 128, torch.bfloat16, CUDA, slot_major, narrow=narrow)
    backend = create_backend(name, AttentionShape((variant,), query_heads, state))
    assert (backend.name, backend.slot_major) == (name, slot_major)
    rows, longest = len(seq_lens), max(seq_lens)
    slots = random.Random(0).sample(range(rows * longest), rows * longest)
    table = torch.tensor(slots, device=CUDA).view(rows, longest)
    layout = RowLayout.of(list(range(rows)), query_lens, seq_lens, table)
    cache = PagedCache(state, rows * longest)
    source = torch.Generator(CUDA).manual_seed(0)
    history = torch.randn(rows * longest, 2, kv_heads, 128, device=CUDA, generator=source).bfloat16()
    cache.write(0, torch.arange(rows * longest, device=CUDA), history.flatten(1, 2))
    tokens = sum(query_lens)
    q = torch.randn(tokens, query_heads, 128, device=CUDA, generator=source).bfloat16()
    kv = torch.randn(tokens, 2 * kv_heads, 128, device=CUDA, generator=source).bfloat16()
    ranges = zip(table, query_lens, seq_lens, strict=True)
    cache.write(0, torch.cat([row[keys - queries : keys] for row, queries, keys in ranges]), kv)
    sinks = torch.linspace(-1, 5, query_heads, device=CUDA) if variant.sinks else None
    out = backend.plan(layout).run(q, LayerAttention(0, 0, 0.11, sinks=sinks), cache)
    return out.float(), cache.keys(0).float(), cache.values(0).float()


def check(variant, heads, layout, name="flashinfer", narrow=None):
    got = attended(name, variant, heads, layout, slot_major=True, narrow=narrow)
    expected = attended("sdpa", variant, heads, layout, slot_major=False, narrow=narrow)
    torch.testing.assert_close(got[0], expected[0], atol=2e-2, rtol=2e-2)
    assert torch.equal(got[1], expected[1]) and torch.equal(got[2], expected[2])


@pytest.fixture(params=[0, flashinfer.MOST_SCORES], ids=["theirs", "ours"])
def _prompts(request, monkeypatch):
    """All prompts by FlashInfer's kernels, or short ones by ours as it is."""
    monkeypatch.setattr(flashinfer, "MOST_SCORES", request.param)


@pytest.mark.usefixtures("_prompts")
@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_plain_attention(heads, layout):
    check(AttentionVariant(), heads, layout)


@pytest.mark.usefixtures("_prompts")
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_windows_and_soft_caps(layout):
    check(AttentionVariant(window=33, softcap=5.0), (8, 2), layout)


@pytest.mark.usefixtures("_prompts")
@pytest.mark.parametrize("heads", [HEADS["multi-head"], HEADS["grouped"]], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_sinks(heads, layout):
    for variant in (AttentionVariant(sinks=True), AttentionVariant(window=33, sinks=True)):
        check(variant, heads, layout)


@pytest.mark.parametrize("narrow", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_cache_of_8_bits_by_our_kernels(heads, layout, narrow):
    for variant in (AttentionVariant(), AttentionVariant(window=33, softcap=5.0)):
        check(variant, heads, layout, "triton", narrow)


@pytest.mark.usefixtures("_prompts")
@pytest.mark.parametrize("heads", [HEADS["multi-head"], HEADS["grouped"]], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_cache_of_8_bits(heads, layout):
    check(AttentionVariant(), heads, layout, narrow=torch.float8_e4m3fn)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model whose heads FlashInfer takes, and what transformers answers with it on the CPU."""
    directory = tmp_path_factory.mktemp("model")
    case = Case("llama-wide", "", "llama", {**LLAMA, "head_dim": 128}, "")
    return directory, build(case, directory)


@pytest.mark.parametrize("name", ["flashinfer", "triton", "sdpa"])
def test_a_model_answers_as_on_the_cpu(model, name):
    """Prompts of different lengths in one step, then all rows token by token."""
    directory, reference = model
    options = ModelOptions(torch.bfloat16, CUDA, attention=name)
    driver = Driver(load_model(directory, options, SingleRank(), lambda _done, _total: None), reference.spans)
    pieces = [[got] for got in driver.step(list(enumerate(reference.prompts)))]
    for at in range(ANSWER_LEN):
        for row, got in enumerate(
            driver.step([(row, answer[at : at + 1]) for row, answer in enumerate(reference.answers)])
        ):
            pieces[row].append(got)
    for got, expected in zip(pieces, reference.logits, strict=True):
        assert (torch.cat(got).float() - expected).std() < 0.05 * expected.std()


def test_linear_biases_are_left_to_our_own_kernels():
    state = PagedSpec(1, 4, 128, torch.bfloat16, CUDA)
    shape = AttentionShape((AttentionVariant(alibi=(0.5, 0.25, 0.1, 0.05)),), 4, state)
    assert create_backend("auto", shape).name == "triton"


def test_flashinfer_is_preferred():
    shape = AttentionShape((AttentionVariant(),), 4, PagedSpec(1, 4, 128, torch.float16, CUDA))
    assert create_backend("auto", shape).name == "flashinfer"
