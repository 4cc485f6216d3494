"""Attention of one token a row over its slots. Knows no plan; whatever changes from step to step is on the device.

The keys of a row are split between programs, as many as the host's numbers allow; a program whose share would be empty
ends at once, and one that has all of its row's keys writes the result itself. Of several, the one that ends last
merges what each has found, in a fixed order (Flash-Decoding). Where query heads share keys, they are the rows of one
matrix product; else products and sums are made without tensor cores, which would compute 16 rows for one.

Dimensions: B rows, H query and K key/value heads, d head_dim.
"""

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.attention.merge import is_last, leave, merged
from text_generation_server.kernels.attention.scores import LOG2_E, Rule
from text_generation_server.kernels.attention.sizes import DecodeTile, Split
from text_generation_server.kernels.attention.walk import fresh, walk, walk_by_sums
from text_generation_server.kernels.launch import overlaps

KEYS_AHEAD = 64
"""Of a program, that are fetched into the L2 cache while the kernel in front still runs."""

FETCHED_BYTES = 16
"""What is fetched ahead is a multiple of."""

MOST_SPLIT = 1 << 12
"""Rows times key heads, of a step whose rows are split."""


@triton.jit
def _fetch(slots: tl.tensor, keys: tl.tensor, SLOT: tl.constexpr, BYTES: tl.constexpr) -> None:
    """Ask for keys and values, BYTES each, of a head in slots [N] to be brought to the L2 cache."""
    for half in tl.static_range(2):
        address = (keys + slots * SLOT + half * (SLOT // 2)).to(tl.int64)
        size = tl.full(slots.shape, BYTES, tl.int32)
        tl.inline_asm_elementwise(
            "cp.async.bulk.prefetch.L2.global [$1], $2; mov.b32 $0, 0;",
            "=r,l,r",
            [address, size],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )


@triton.jit(do_not_specialize=["window"])
def _decode(
    q: tl.tensor,
    kv: tl.tensor,
    out: tl.tensor,
    rows: tl.tensor,
    kv_lens: tl.tensor,
    tokens: tl.tensor,
    table: tl.tensor,
    slopes: tl.tensor,
    parts: tl.tensor,
    masses: tl.tensor,
    arrived: tl.tensor,
    q_token: int,
    q_head: int,
    table_stride: int,
    window: int,
    scale: float,
    softcap: float,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_S: tl.constexpr,
    STAGES: tl.constexpr,
    CAPPED: tl.constexpr,
    SPLITS: tl.constexpr,
    LEAST: tl.constexpr,
    AHEAD: tl.constexpr,
    BYTES: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    blocks: tl.constexpr = (GROUP + BLOCK_G - 1) // BLOCK_G
    slot: tl.constexpr = 2 * KV_HEADS * HEAD_DIM
    kv_head, index, split = tl.program_id(0) // blocks, tl.program_id(1), tl.program_id(2)
    first = tl.program_id(0) % blocks * BLOCK_G
    # Lengths and slots were written before the step's first kernel: only queries, keys and values are waited for.
    kv_len = tl.load(kv_lens + index).to(tl.int32)
    slots = table + tl.load(rows + index) * table_stride
    token = (index if tokens is None else tl.load(tokens + index)).to(tl.int64)
    oldest = tl.maximum(kv_len - window, 0)
    share = tl.maximum(tl.cdiv(tl.cdiv(kv_len - oldest, SPLITS), BLOCK_N) * BLOCK_N, LEAST)
    used = tl.cdiv(kv_len - oldest, share)
    begin = oldest + split * share
    end, source = tl.minimum(begin + share, kv_len), (kv + kv_head * HEAD_DIM, slots)
    if PDL:
        gdc_launch_dependents()
    if split >= used:
        return
    if PDL:
        if AHEAD > 0:
            ahead = tl.load(slots + tl.minimum(begin + tl.arange(0, AHEAD), end - 1))
            _fetch(ahead, kv + kv_head * HEAD_DIM, slot, BYTES)
        gdc_wait()
    member = first + tl.arange(0, BLOCK_G)
    head = kv_head * GROUP + member
    column = tl.arange(0, BLOCK_D)[None, :]
    held = (member < GROUP)[:, None] & (column < HEAD_DIM)
    query = tl.load(q + token * q_token + head[:, None] * q_head + column, mask=held, other=0.0)
    slope = None if slopes is None else tl.load(slopes + head, mask=member < GROUP, other=0.0)
    bound = softcap if CAPPED else None
    newest = kv_len - 1
    if BLOCK_G == 1:
        most, total, values = walk_by_sums(
            query, newest, source, begin, end, slope, scale, bound, slot, HEAD_DIM, BLOCK_N, STAGES
        )
    else:
        at, state = tl.zeros((BLOCK_G,), tl.int32) + newest, fresh(BLOCK_G, BLOCK_D)
        slope = None if slope is None else slope[:, None]
        most, total, values = walk(
            state, query, at, source, begin, end, window, slope, scale, bound, slot, HEAD_DIM, BLOCK_N, STAGES, True
        )
    values /= total[:, None]
    result = out + token * (KV_HEADS * GROUP * HEAD_DIM) + column
    # A step whose rows are not split has nowhere to leave parts: its kernel must not name them.
    if SPLITS > 1 and used > 1:
        row_parts = parts + index.to(tl.int64) * (KV_HEADS * GROUP * SPLITS * BLOCK_D)
        row_masses = masses + index * (KV_HEADS * GROUP * SPLITS)
        mass = most + tl.log2(total)
        leave(row_parts, row_masses, head, member < GROUP, split, values, mass, SPLITS, BLOCK_D)
        counter = arrived + index * tl.num_programs(0) + tl.program_id(0)
        if is_last(counter, used):
            last = kv_head * GROUP + GROUP - 1
            # Heads behind the last are the last again.
            heads = tl.minimum(kv_head * GROUP + first + tl.arange(0, BLOCK_M), last)
            joined = merged(row_parts, row_masses, heads, used, SPLITS, BLOCK_D, BLOCK_S)
            tl.store(result + heads[:, None] * HEAD_DIM, joined.to(out.dtype.element_ty), mask=column < HEAD_DIM)
            tl.store(counter, 0)
        return
    tl.store(result + head[:, None] * HEAD_DIM, values.to(out.dtype.element_ty), mask=held)


@cache
def _arrived(device: torch.device) -> Tensor:
    """How many programs of a row and key head have stored what they found; zero between kernels. For one stream."""
    return torch.zeros(MOST_SPLIT, dtype=torch.int32, device=device)


def decode(
    q: Tensor,
    kv: Tensor,
    rows: Tensor,
    kv_lens: Tensor,
    table: Tensor,
    rule: Rule,
    scale: float,
    split: Split,
    tokens: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Attention of one token of each row; [T, H · d].

    The first call for a device must not be captured in a graph: it makes what later ones leave as found.

    Args:
        q: [T, H, d], each head contiguous.
        kv: [slots, 2, K, d], contiguous: a layer's keys and values.
        rows, kv_lens: [B] int64, of the table; keys that each sees, at least one.
        table: [all rows, positions] int64, the slot of each position of each row.
        rule: what scores are subject to.
        scale: of products.
        split: how keys are shared by programs.
        tokens: [B] int64, the token of each row; None for T = B, in order.
        out: where to write; None for a new tensor.
    """
    heads, head_dim = q.shape[1:]
    kv_heads, count = kv.shape[2], rows.shape[0]
    out = q.new_empty(len(q), heads * head_dim) if out is None else out
    tile = DecodeTile.of(heads // kv_heads, head_dim)
    blocks = kv_heads * triton.cdiv(heads // kv_heads, tile.heads)
    parts = masses = arrived = None
    if split.parts > 1:
        parts = torch.empty(count * heads * split.parts * tile.width, dtype=torch.float32, device=q.device)
        masses = torch.empty(count * heads * split.parts, dtype=torch.float32, device=q.device)
        arrived = _arrived(q.device)
    head_bytes = head_dim * kv.element_size()
    pdl = overlaps(q.device)
    _decode[(blocks, count, split.parts)](
        *(q, kv, out, rows, kv_lens, tokens, table, rule.slopes, parts, masses, arrived),
        *(*q.stride()[:2], table.stride(0), rule.window, scale * LOG2_E, rule.softcap or 0.0),
        KV_HEADS=kv_heads,
        GROUP=heads // kv_heads,
        HEAD_DIM=head_dim,
        BLOCK_D=tile.width,
        BLOCK_G=tile.heads,
        BLOCK_N=tile.keys,
        BLOCK_M=tile.merged[0],
        BLOCK_S=tile.merged[1],
        STAGES=tile.stages,
        CAPPED=rule.softcap is not None,
        SPLITS=split.parts,
        LEAST=triton.cdiv(split.keys, tile.keys) * tile.keys,
        AHEAD=KEYS_AHEAD if head_bytes % FETCHED_BYTES == 0 else 0,
        BYTES=head_bytes,
        PDL=pdl,
        launch_pdl=pdl,
        num_warps=tile.warps,
    )
    return out
