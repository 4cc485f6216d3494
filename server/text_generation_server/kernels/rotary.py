"""Rotates queries and keys, writes keys and values to the cache. Twin: `layers/rotary.py::rotate_and_write`.

Knows neither frequencies nor who holds a slot.

Dimensions: T tokens, H query and K key/value heads, d head_dim, of which the first dim are rotated.
"""

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
    HEAD_DIM: tl.constexpr,
    HALF: tl.constexpr,
    PAIRS: tl.constexpr,
    REST: tl.constexpr,
    HEADS: tl.constexpr,
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
    key = keys + slot * key_slot + (head - heads) * key_head
    value = values + slot * value_slot + (head - heads - kv_heads) * value_head
    target = tl.where(head < heads, source, tl.where(head < heads + kv_heads, key, value))
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
        tl.store(target + pair, tl.where(rotated, (x * c - y * s).to(left.dtype), left), mask=mask)
        tl.store(target + HALF + pair, tl.where(rotated, (y * c + x * s).to(left.dtype), right), mask=mask)
    if HEAD_DIM > 2 * HALF:
        rest = 2 * HALF + tl.arange(0, REST)[None, :]
        mask = held & (head >= heads) & (rest < HEAD_DIM)
        tl.store(target + rest, tl.load(source + rest, mask=mask), mask=mask)


def rotate_and_write(
    qkv: Tensor, kv_heads: int, cos: Tensor | None, sin: Tensor | None, keys: Tensor, values: Tensor, slots: Tensor
) -> None:
    """One layer's work between its first projection and its attention.

    Args:
        qkv: [T, H + 2 · K, d], contiguous. Queries are rotated in place; what becomes of its keys is not defined.
        cos, sin: [T, 1, dim] as in `layers.rotary.Angles`, contiguous; None rotates nothing.
        keys, values: [slots, K, d], any strides but 1 between the numbers of a head; the dtype of qkv.
        slots: [T] int64, where each token's keys and values go.
    """
    tokens, all_heads, head_dim = qkv.shape
    half = 0 if cos is None else cos.shape[-1] // 2
    many = tokens * all_heads >= MANY
    block = MANY_HEADS if many else FEW_HEADS
    pdl = overlaps(qkv.device)
    _rotate_and_write[(tokens, triton.cdiv(all_heads, block))](
        *(qkv, cos, sin, keys, values, slots),
        *(all_heads - 2 * kv_heads, kv_heads),
        *(keys.stride(0), keys.stride(1), values.stride(0), values.stride(1)),
        HEAD_DIM=head_dim,
        HALF=half,
        PAIRS=triton.next_power_of_2(max(half, 1)),
        REST=triton.next_power_of_2(max(head_dim - 2 * half, 1)),
        HEADS=block,
        PDL=pdl,
        launch_pdl=pdl,
        num_warps=4 if many else 1,
    )
