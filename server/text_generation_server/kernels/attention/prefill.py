"""Attention of any number of tokens a row over its slots, to earlier ones or to all. Knows no plan and no cache.

The query heads of a key head are rows of one matrix like its tokens: a program takes a block of such rows, and walks
over the keys that they see with a running maximum (FlashAttention-2, arXiv 2307.08691). Only where some rows do not
see some keys of a block, at its ends, are scores masked.

Dimensions: T tokens of the step, H query and K key/value heads, g = H / K, d head_dim.
"""

from collections.abc import Iterable

import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.attention.narrow import suited
from text_generation_server.kernels.attention.scores import EVERYTHING, LOG2_E, UNITS, Rule
from text_generation_server.kernels.attention.sizes import PrefillTile, padded_width
from text_generation_server.kernels.attention.walk import begun, walk
from text_generation_server.kernels.dependent_launch import overlaps

FIELDS = 5
"""Numbers of a block: see `blocks_of`, then the first of its queries' heads."""


def blocks_of(rows: Iterable[tuple[int, int, int, int]], group: int, size: int) -> list[tuple[int, ...]]:
    """What `prefill` is to compute, a line a program, those with the most keys first: they take longest.

    Args:
        rows: each row's place in the table, first token in the step, number of tokens, and keys that the last sees.
        group: query heads a key head.
        size: rows of a tile.
    """
    blocks = ((*row, first) for row in rows for first in range(0, row[2] * group, size))
    return sorted(blocks, key=lambda block: block[3] - block[2] + block[4] // group, reverse=True)


@triton.jit
def _attend(
    q: tl.tensor,
    kv: tl.tensor,
    out: tl.tensor,
    line: tl.tensor,
    table: tl.tensor,
    slopes: tl.tensor,
    biases: tl.tensor,
    sinks: tl.tensor,
    kv_head: tl.tensor,
    q_token: int,
    q_head: int,
    table_stride: int,
    window: int,
    scale: float,
    softcap: float,
    farthest: int,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STAGES: tl.constexpr,
    WINDOWED: tl.constexpr,
    CAUSAL: tl.constexpr,
) -> None:
    """One block of a key head, which `line` describes."""
    slots = table + tl.load(line) * table_stride
    queries, kv_len, first = tl.load(line + 2).to(tl.int32), tl.load(line + 3).to(tl.int32), tl.load(line + 4)
    first = first.to(tl.int32)
    row = first + tl.arange(0, BLOCK_M)
    last = queries * GROUP - 1
    stored = row <= last
    row = tl.minimum(row, last)
    head = kv_head * GROUP + row % GROUP
    token = tl.load(line + 1) + row // GROUP
    before = kv_len - queries
    at = before + row // GROUP
    column = tl.arange(0, BLOCK_D)[None, :]
    held = stored[:, None] & (column < HEAD_DIM)
    query = suited(tl.load(q + token[:, None] * q_token + head[:, None] * q_head + column, mask=held, other=0.0), kv)
    slope = None if slopes is None else tl.load(slopes + head)[:, None]
    bias = None if biases is None else (biases + head * (2 * farthest + 1) + farthest)[:, None]
    # All rows see the keys up to the first one's; the last sees those up to `end`.
    if CAUSAL:
        full = before + first // GROUP + 1
        end = before + tl.minimum(first + BLOCK_M - 1, last) // GROUP + 1
    else:
        full = kv_len
        end = kv_len
    begin = tl.maximum(full - window, 0)
    full = begin + (full - begin) // BLOCK_N * BLOCK_N
    slot: tl.constexpr = 2 * KV_HEADS * HEAD_DIM
    source = kv + kv_head * HEAD_DIM, slots
    state = begun(None if sinks is None else tl.load(sinks + head) * UNITS, True, BLOCK_M, BLOCK_D)
    if not WINDOWED:
        state = walk(
            state, query, at, source, begin, full, window, slope, scale, softcap, bias, farthest,
            slot, HEAD_DIM, BLOCK_N, STAGES, False, CAUSAL,
        )  # fmt: skip
        begin = full
    _, total, values = walk(
        state, query, at, source, begin, end, window, slope, scale, softcap, bias, farthest,
        slot, HEAD_DIM, BLOCK_N, STAGES, True, CAUSAL,
    )  # fmt: skip
    place = token[:, None] * (KV_HEADS * GROUP * HEAD_DIM) + head[:, None] * HEAD_DIM + column
    tl.store(out + place, (values / total[:, None]).to(out.dtype.element_ty), mask=held)


@triton.jit(do_not_specialize=["window"])
def _prefill(
    q: tl.tensor,
    kv: tl.tensor,
    out: tl.tensor,
    blocks: tl.tensor,
    count: tl.tensor,
    table: tl.tensor,
    slopes: tl.tensor,
    biases: tl.tensor,
    sinks: tl.tensor,
    q_token: int,
    q_head: int,
    table_stride: int,
    window: int,
    scale: float,
    softcap: tl.tensor,
    farthest: int,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STAGES: tl.constexpr,
    WINDOWED: tl.constexpr,
    CAUSAL: tl.constexpr,
    FIELDS: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    # What is to be done was written before the step's first kernel.
    pieces = tl.load(count).to(tl.int32) * KV_HEADS
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    for piece in range(tl.program_id(0), pieces, tl.num_programs(0)):
        line, kv_head = blocks + piece // KV_HEADS * FIELDS, piece % KV_HEADS
        _attend(
            q, kv, out, line, table, slopes, biases, sinks, kv_head, q_token, q_head, table_stride, window, scale,
            softcap, farthest, KV_HEADS, GROUP, HEAD_DIM, BLOCK_D, BLOCK_M, BLOCK_N, STAGES, WINDOWED, CAUSAL,
        )  # fmt: skip


def prefill(
    q: Tensor,
    kv: Tensor,
    blocks: Tensor,
    count: Tensor,
    table: Tensor,
    rule: Rule,
    scale: float,
    tile: PrefillTile,
    programs: int,
    out: Tensor,
    sinks: Tensor | None = None,
) -> None:
    """Write the attention of some tokens to out [T, H · d].

    Args:
        q: [T, H, d], each head contiguous.
        kv: [slots, 2, K, d], contiguous: a layer's keys and values, in the type of q or in 8 bits.
        blocks: [any, 5] int64, see `blocks_of`.
        count: [1] int64, how many of the blocks are to be computed.
        table: [all rows, positions] int64, the slot of each position of each row.
        rule: what scores are subject to.
        scale: of products.
        tile: that `blocks` were made for.
        programs: that share the work, a block of a key head each until all is done.
        out: contiguous; other tokens of it stay as they are.
        sinks: [H] float32, a score of each head that has no value; None for none.
    """
    heads, head_dim = q.shape[1:]
    kv_heads = kv.shape[2]
    pdl = overlaps(q.device)
    _prefill[(programs,)](
        *(q, kv, out, blocks, count, table, rule.slopes, rule.biases, sinks, *q.stride()[:2], table.stride(0)),
        *(rule.window, scale * LOG2_E, rule.softcap, rule.farthest),
        KV_HEADS=kv_heads,
        GROUP=heads // kv_heads,
        HEAD_DIM=head_dim,
        BLOCK_D=padded_width(head_dim),
        BLOCK_M=tile.rows,
        BLOCK_N=tile.keys,
        STAGES=tile.stages,
        WINDOWED=rule.window < EVERYTHING,
        CAUSAL=rule.causal,
        FIELDS=FIELDS,
        PDL=pdl,
        launch_pdl=pdl,
        num_warps=tile.warps,
    )
