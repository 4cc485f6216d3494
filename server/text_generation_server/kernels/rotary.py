"""Rotates queries and keys, writes keys and values to the cache. Twin: `layers/rotary.py::rotate_and_write`.

Knows neither frequencies nor who holds a slot.

Dimensions: T tokens, H query and K key/value heads, d head_dim, of which the first dim are rotated.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.dependent_launch import overlaps

FEW_HEADS = 2
"""Heads of a program of one warp: the few tokens of a decode step spread over many multiprocessors."""

MANY_HEADS = 16
"""Heads of a program of four warps, 16 bytes a load and thread where heads have 128 numbers of 16 bits."""

MANY = 4096
"""Heads of all tokens together from which such programs fill a GPU too: 3072 of one warp took 4.4 us (H100)."""


@triton.jit
def _put(
    numbers: tl.tensor,
    places: tl.tuple,
    column: tl.tensor,
    mask: tl.tensor,
    is_query: tl.tensor,
    is_key: tl.tensor,
    scales: tl.tuple,
    MOST: tl.constexpr,
) -> None:
    """Store columns [n] of heads [h, n] where queries, keys or values go; `places` are pointers [h, 1] for each kind.

    scales: that keys and values are divided by where the cache is narrow and holds up to MOST, which is 0 elsewhere.
    """
    query, key, value = places
    if MOST == 0:
        tl.store(tl.where(is_query, query, tl.where(is_key, key, value)) + column, numbers, mask=mask)
    else:
        tl.store(query + column, numbers, mask=mask & is_query)
        wide = numbers.to(tl.float32) / tl.where(is_key, scales[0], scales[1])
        # Bounded by hand: conversions beyond the range differ between devices. What is no number stays none.
        wide = tl.clamp(wide, -MOST, MOST, propagate_nan=tl.PropagateNan.ALL)
        tl.store(tl.where(is_key, key, value) + column, wide.to(key.dtype.element_ty), mask=mask & (is_query == 0))


@triton.jit
def _rotate_and_write(
    qkv: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    slots: tl.tensor,
    heads: int,
    kv_heads: int,
    key_slot: tl.int64,
    key_head: tl.int64,
    value_slot: tl.int64,
    value_head: tl.int64,
    key_scale: float,
    value_scale: float,
    HEAD_DIM: tl.constexpr,
    HALF: tl.constexpr,
    PAIRS: tl.constexpr,
    REST: tl.constexpr,
    HEADS: tl.constexpr,
    MOST: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1).to(tl.int64) * HEADS + tl.arange(0, HEADS)[:, None]
    held = head < heads + 2 * kv_heads
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    slot = tl.load(slots + token)
    source = qkv + (token * (heads + 2 * kv_heads) + head) * HEAD_DIM
    is_query, is_key = head < heads, (head >= heads) & (head < heads + kv_heads)
    key = keys + slot * key_slot + (head - heads) * key_head
    value = values + slot * value_slot + (head - heads - kv_heads) * value_head
    places, scales = (source, key, value), (key_scale, value_scale)
    if HALF > 0:
        pair = tl.arange(0, PAIRS)[None, :]
        mask = held & (pair < HALF)
        left = tl.load(source + pair, mask=mask)
        right = tl.load(source + HALF + pair, mask=mask)
        # The second halves: what a pair turns by, in the sign of the mathematics.
        angle = token * 2 * HALF + HALF + pair
        c = tl.load(cos + angle, mask=pair < HALF).to(tl.float32)
        s = tl.load(sin + angle, mask=pair < HALF).to(tl.float32)
        x, y = left.to(tl.float32), right.to(tl.float32)
        rotated = head < heads + kv_heads
        left = tl.where(rotated, (x * c - y * s).to(left.dtype), left)
        right = tl.where(rotated, (y * c + x * s).to(left.dtype), right)
        _put(left, places, pair, mask, is_query, is_key, scales, MOST)
        _put(right, places, HALF + pair, mask, is_query, is_key, scales, MOST)
    if HEAD_DIM > 2 * HALF:
        rest = 2 * HALF + tl.arange(0, REST)[None, :]
        mask = held & (head >= heads) & (rest < HEAD_DIM)
        _put(tl.load(source + rest, mask=mask), places, rest, mask, is_query, is_key, scales, MOST)


def rotate_and_write(
    qkv: Tensor,
    kv_heads: int,
    cos: Tensor | None,
    sin: Tensor | None,
    keys: Tensor,
    values: Tensor,
    slots: Tensor,
    key_scale: float = 1.0,
    value_scale: float = 1.0,
) -> None:
    """One layer's work between its first projection and its attention.

    Args:
        qkv: [T, H + 2 · K, d], contiguous. Queries are rotated in place; what becomes of its keys is not defined.
        cos, sin: [T, 1, dim] as in `layers.rotary.Angles`, contiguous; None rotates nothing.
        keys, values: [slots, K, d], any strides but 1 between the numbers of a head; in the dtype of qkv or 8 bits.
        slots: [T] int64, where each token's keys and values go.
        key_scale, value_scale: what those of 8 bits are divided by before they are rounded.
    """
    tokens, all_heads, head_dim = qkv.shape
    half = 0 if cos is None else cos.shape[-1] // 2
    many = tokens * all_heads >= MANY
    block = MANY_HEADS if many else FEW_HEADS
    pdl = overlaps(qkv.device)
    _rotate_and_write[(tokens, triton.cdiv(all_heads, block))](
        *(qkv, cos, sin, keys, values, slots),
        *(all_heads - 2 * kv_heads, kv_heads),
        *(keys.stride(0), keys.stride(1), values.stride(0), values.stride(1), key_scale, value_scale),
        HEAD_DIM=head_dim,
        HALF=half,
        PAIRS=triton.next_power_of_2(max(half, 1)),
        REST=triton.next_power_of_2(max(head_dim - 2 * half, 1)),
        HEADS=block,
        MOST=0 if keys.dtype is qkv.dtype else torch.finfo(keys.dtype).max,
        PDL=pdl,
        launch_pdl=pdl,
        num_warps=4 if many else 1,
    )
