"""Rotation and writing to the cache against `rotate` and an indexed copy, in float32."""

import pytest
import torch

from text_generation_server.cache.narrow import KVScales
from text_generation_server.cache.paged import PagedCache, PagedSpec
from text_generation_server.kernels import rotary as module
from text_generation_server.kernels.rotary import rotate_and_write
from text_generation_server.layers.rotary import Angles, rotate

SLOTS = 11
ULPS = {torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}


class Case:
    """Random queries, keys and values of some tokens, and a cache to write them to."""

    def __init__(self, device, dtype=torch.float32, heads=3, kv_heads=1, head_dim=16, tokens=4, slot_major=True):
        self.generator = torch.Generator().manual_seed(heads * head_dim + tokens)
        self.heads, self.kv_heads, self.device = heads, kv_heads, device
        self.qkv = self.drawn(tokens, heads + 2 * kv_heads, head_dim).to(dtype)
        self.slots = torch.randperm(SLOTS, generator=self.generator)[:tokens].to(device)
        state = PagedSpec(2, kv_heads, head_dim, dtype, device, slot_major)
        self.cache = PagedCache(state, SLOTS)
        for layer in range(2):
            self.cache.layer(layer).fill_(7.0)

    def drawn(self, *shape):
        return torch.randn(shape, generator=self.generator).to(self.device)

    def angles(self, dim, dtype):
        angles = self.drawn(self.qkv.shape[0], 1, dim // 2)
        cos, sin = angles.cos(), angles.sin()
        return Angles(torch.cat((cos, cos), -1).to(dtype), torch.cat((-sin, sin), -1).to(dtype))

    def expected(self, angles):
        """Queries, and keys and values of all slots, all in float32 before they are rounded."""
        wanted = self.qkv.to(torch.float32, copy=True)
        if angles is not None:
            rotate(wanted[:, : -self.kv_heads], Angles(angles.cos.float(), angles.sin.float()))
        keys, values = (torch.full((SLOTS, self.kv_heads, wanted.shape[-1]), 7.0).to(self.device) for _ in range(2))
        keys[self.slots] = wanted[:, self.heads : -self.kv_heads]
        values[self.slots] = wanted[:, -self.kv_heads :]
        return wanted[:, : self.heads], keys, values

    def check(self, angles):
        """Runs layer 1; layer 0 must stay as it was."""
        expected = self.expected(angles)
        tables = (None, None) if angles is None else (angles.cos, angles.sin)
        keys, values = self.cache.keys(1), self.cache.values(1)
        rotate_and_write(self.qkv, self.kv_heads, *tables, keys, values, self.slots)
        for got, wanted in zip((self.qkv[:, : self.heads], keys, values), expected, strict=True):
            torch.testing.assert_close(got.float(), wanted, rtol=ULPS[got.dtype], atol=ULPS[got.dtype])
        assert torch.equal(values.float(), expected[2])
        assert (self.cache.layer(0) == 7.0).all()


@pytest.mark.parametrize("slot_major", (True, False), ids=["slot-major", "head-major"])
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float16))
def test_rotates_queries_and_writes_keys_and_values(device, dtype, slot_major):
    case = Case(device, dtype, slot_major=slot_major)
    case.check(case.angles(16, dtype))


@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (4, 4), (5, 1), (6, 2)])
def test_any_number_of_heads(device, heads, kv_heads):
    case = Case(device, heads=heads, kv_heads=kv_heads)
    case.check(case.angles(16, torch.float32))


@pytest.mark.parametrize(("head_dim", "dim"), [(16, 4), (20, 20), (24, 6), (10, 2)])
@pytest.mark.parametrize("slot_major", (True, False), ids=["slot-major", "head-major"])
def test_heads_may_be_rotated_in_part(device, head_dim, dim, slot_major):
    case = Case(device, torch.bfloat16, kv_heads=2, head_dim=head_dim, slot_major=slot_major)
    case.check(case.angles(dim, torch.bfloat16))


def test_tables_may_be_more_precise_than_the_heads(device):
    case = Case(device, torch.bfloat16)
    case.check(case.angles(16, torch.float32))


@pytest.mark.parametrize("head_dim", (16, 24))
def test_without_angles_all_is_only_written(device, head_dim):
    case = Case(device, torch.bfloat16, kv_heads=2, head_dim=head_dim)
    queries = case.qkv[:, : case.heads].clone()
    case.check(None)
    assert torch.equal(case.qkv[:, : case.heads], queries)


def test_many_tokens_go_through_programs_of_many_heads(device, monkeypatch):
    monkeypatch.setattr(module, "MANY", 1)
    case = Case(device, heads=20, kv_heads=5, tokens=3)
    case.check(case.angles(12, torch.float32))


def test_infinite_values_are_written_as_they_are(device):
    case = Case(device)
    case.qkv[:, -1, ::3] = float("inf")
    case.check(case.angles(16, torch.float32))


@pytest.mark.usefixtures("carries")
@pytest.mark.parametrize("narrow", (torch.float8_e4m3fn, torch.float8_e5m2), ids=str)
@pytest.mark.parametrize(("head_dim", "dim"), [(16, 16), (24, 6)])
def test_a_narrow_cache_gets_what_its_twin_writes(device, narrow, head_dim, dim):
    """Divided by the layer's scales, and bounded where that is beyond the type's range; queries as ever."""
    case = Case(device, kv_heads=2, head_dim=head_dim)
    case.qkv[0] *= 1e6
    case.qkv[1, -1, 0] = torch.inf
    angles, scales = case.angles(dim, torch.float32), KVScales(0.5, 3.0)
    state = PagedSpec(1, 2, head_dim, torch.float32, device, slot_major=True, narrow=narrow)
    got, expected = (PagedCache(state, SLOTS) for _ in range(2))
    for cache in (got, expected):
        cache.layer(0).view(torch.uint8).fill_(56)
    rotated = case.qkv.clone()
    rotate(rotated[:, :-2], angles)
    expected.write(0, case.slots, rotated[:, -4:], scales)
    places = got.keys(0), got.values(0), case.slots
    rotate_and_write(case.qkv, 2, angles.cos, angles.sin, *places, scales.key, scales.value)
    torch.testing.assert_close(case.qkv[:, : case.heads], rotated[:, : case.heads], rtol=1e-6, atol=1e-6)
    assert expected.layer(0).float().abs().max() == torch.finfo(narrow).max
    # The kernel rotates with other roundings, which may tip a number over to its neighbour.
    apart = got.layer(0).view(torch.int8).int() - expected.layer(0).view(torch.int8).int()
    assert apart.abs().max() <= 1 and (apart != 0).float().mean() < 0.01
