"""Attention of one token a row over its slots. Knows no plan; whatever changes from step to step is on the device.

The keys of a row are split between programs, as many as the host's numbers allow; a program whose share would be empty
ends at once, and one that has all of its row's keys writes the result itself. Of several, the one that ends last
merges what each has found, in a fixed order (Flash-Decoding). Where query heads share keys, they are the rows of one
matrix product; else products and sums are made without tensor cores, which would compute 16 rows for one.

Dimensions: B rows, H query and K key/value heads, d head_dim.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.attention.merge import is_last, leave, merged
from text_generation_server.kernels.attention.narrow import suited
from text_generation_server.kernels.attention.scores import LOG2_E, UNITS, Rule
from text_generation_server.kernels.attention.sizes import DECODE_STAGES, DecodeTile, KVSplit
from text_generation_server.kernels.attention.walk import begun, walk, walk_by_sums
from text_generation_server.kernels.dependent_launch import overlaps

MOST_SPLIT = 1 << 12
"""Rows times key heads, of a step whose rows are split."""


@triton.jit
def _share_of(
    split: tl.tensor, kv_len: tl.tensor, window: int, SPLITS: tl.constexpr, BLOCK_N: tl.constexpr, LEAST: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Among how many programs a row's visible keys are split, and this one's first key and the one behind its last."""
    oldest = tl.maximum(kv_len - window, 0)
    share = tl.maximum(tl.cdiv(tl.cdiv(kv_len - oldest, SPLITS), BLOCK_N) * BLOCK_N, LEAST)
    begin = oldest + split * share
    return tl.cdiv(kv_len - oldest, share), begin, tl.minimum(begin + share, kv_len)


@triton.jit
def _attend(
    query: tl.tensor,
    kv_len: tl.tensor,
    source: tl.tuple,
    begin: tl.tensor,
    end: tl.tensor,
    window: int,
    slope: tl.tensor,
    scale: float,
    softcap: float,
    bias: tl.tensor,
    farthest: int,
    sink: tl.tensor,
    first: tl.tensor,
    SLOT: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STAGES: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """What queries [G, d] of a row's newest token find among keys [begin, end): values [G, d] and their masses [G].

    sink, first: see `begun`.
    """
    group: tl.constexpr = query.shape[0]
    newest = kv_len - 1
    if group == 1:
        most, total, values = walk_by_sums(
            query, newest, source, begin, end, slope, scale, softcap, bias, farthest, sink, first,
            SLOT, HEAD_DIM, BLOCK_N, STAGES,
        )  # fmt: skip
    else:
        at, state = tl.zeros((group,), tl.int32) + newest, begun(sink, first, group, query.shape[1])
        slope = None if slope is None else slope[:, None]
        bias = None if bias is None else bias[:, None]
        most, total, values = walk(
            state, query, at, source, begin, end, window, slope, scale, softcap, bias, farthest,
            SLOT, HEAD_DIM, BLOCK_N, STAGES, True, True,
        )  # fmt: skip
    return values / total[:, None], most + tl.log2(total)


@triton.jit
def _join(
    found: tl.tuple,
    stores: tl.tuple,
    heads: tl.tuple,
    split: tl.tensor,
    used: tl.tensor,
    result: tl.tensor,
    HEAD_DIM: tl.constexpr,
    SPLITS: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_S: tl.constexpr,
) -> None:
    """Leave what this program has found for some heads of a row; the last of its programs writes what all have.

    found: values [G, d], masses [G]. stores: the row's parts and masses, the counter of these programs. heads: theirs
    [G], which of them there are [G], the key head. result: where the row's first head is written [1, d].
    """
    values, mass = found
    parts, masses, counter = stores
    head, held, kv_head = heads
    last = kv_head * GROUP + GROUP - 1
    width: tl.constexpr = values.shape[1]
    leave(parts, masses, head, held, split, values, mass, SPLITS, width)
    if is_last(counter, used):
        # Heads behind the last are the last again.
        every = tl.minimum(tl.min(head, 0) + tl.arange(0, BLOCK_M), last)[:, None]
        joined = merged(parts, masses, tl.reshape(every, (BLOCK_M,)), used, SPLITS, width, BLOCK_S)
        inside = tl.arange(0, width)[None, :] < HEAD_DIM
        tl.store(result + every * HEAD_DIM, joined.to(result.dtype.element_ty), mask=inside)
        tl.store(counter, 0)


@triton.jit(do_not_specialize=["window"])
def _decode(
    q: tl.tensor,
    kv: tl.tensor,
    out: tl.tensor,
    rows: tl.tensor,
    seq_lens: tl.tensor,
    tokens: tl.tensor,
    table: tl.tensor,
    slopes: tl.tensor,
    biases: tl.tensor,
    sinks: tl.tensor,
    parts: tl.tensor,
    masses: tl.tensor,
    arrived: tl.tensor,
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
    BLOCK_G: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_S: tl.constexpr,
    STAGES: tl.constexpr,
    SPLITS: tl.constexpr,
    LEAST: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    blocks: tl.constexpr = (GROUP + BLOCK_G - 1) // BLOCK_G
    slot: tl.constexpr = 2 * KV_HEADS * HEAD_DIM
    kv_head, index, split = tl.program_id(0) // blocks, tl.program_id(1), tl.program_id(2)
    # Lengths and slots were written before the step's first kernel: only queries, keys and values are waited for.
    kv_len = tl.load(seq_lens + index).to(tl.int32)
    source = kv + kv_head * HEAD_DIM, table + tl.load(rows + index) * table_stride
    token = (index if tokens is None else tl.load(tokens + index)).to(tl.int64)
    used, begin, end = _share_of(split, kv_len, window, SPLITS, BLOCK_N, LEAST)
    if PDL:
        gdc_launch_dependents()
        # Of rows without keys all programs end at once: not before the kernel in front, which others count on.
        if (split < used) | (kv_len == 0):
            gdc_wait()
    if split >= used:
        return
    member, column = tl.program_id(0) % blocks * BLOCK_G + tl.arange(0, BLOCK_G), tl.arange(0, BLOCK_D)[None, :]
    head, here = kv_head * GROUP + member, member < GROUP
    held = here[:, None] & (column < HEAD_DIM)
    query = suited(tl.load(q + token * q_token + head[:, None] * q_head + column, mask=held, other=0.0), kv)
    slope = None if slopes is None else tl.load(slopes + head, mask=here, other=0.0)
    # Heads behind the last are the last again.
    bias = None if biases is None else biases + tl.minimum(head, KV_HEADS * GROUP - 1) * (2 * farthest + 1) + farthest
    sink = None if sinks is None else tl.load(sinks + head, mask=here, other=0.0) * UNITS
    found = _attend(
        query, kv_len, source, begin, end, window, slope, scale, softcap, bias, farthest, sink, split == 0,
        slot, HEAD_DIM, BLOCK_N, STAGES,
    )  # fmt: skip
    result = out + token * (KV_HEADS * GROUP * HEAD_DIM) + column
    # A step whose rows are not split has nowhere to leave parts: its kernel must not name them.
    if SPLITS > 1 and used > 1:
        row = index.to(tl.int64) * (KV_HEADS * GROUP * SPLITS)
        stores = parts + row * BLOCK_D, masses + row, arrived + index * tl.num_programs(0) + tl.program_id(0)
        _join(found, stores, (head, here, kv_head), split, used, result, HEAD_DIM, SPLITS, GROUP, BLOCK_M, BLOCK_S)
    else:
        tl.store(result + head[:, None] * HEAD_DIM, found[0].to(out.dtype.element_ty), mask=held)


def arrivals(device: torch.device) -> Tensor:
    """How many programs of a row and key head have stored what they found; zero between kernels. For one stream."""
    return torch.zeros(MOST_SPLIT, dtype=torch.int32, device=device)


def decode(
    q: Tensor,
    kv: Tensor,
    rows: Tensor,
    seq_lens: Tensor,
    table: Tensor,
    rule: Rule,
    scale: float,
    split: KVSplit,
    arrived: Tensor,
    tokens: Tensor | None = None,
    out: Tensor | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention of one token of each row; [T, H · d].

    Args:
        q: [T, H, d], each head contiguous.
        kv: [slots, 2, K, d], contiguous: a layer's keys and values, in the type of q or in 8 bits.
        rows, seq_lens: [B] int64, of the table; keys that each sees. A row without keys is passed over.
        table: [all rows, positions] int64, the slot of each position of each row.
        rule: what scores are subject to.
        scale: of products.
        split: how keys are shared by programs.
        arrived: the `arrivals` of the caller's stream, left as found.
        tokens: [B] int64, the token of each row; None for T = B, in order.
        out: where to write; None for a new tensor.
        sinks: [H] float32, a score of each head that has no value; None for none.
    """
    heads, head_dim = q.shape[1:]
    kv_heads, count = kv.shape[2], rows.shape[0]
    out = q.new_empty(len(q), heads * head_dim) if out is None else out
    tile = DecodeTile.of(heads // kv_heads, head_dim, kv.itemsize == 1)
    blocks = kv_heads * triton.cdiv(heads // kv_heads, tile.heads)
    stores: tuple[Tensor | None, ...] = (None, None, None)
    if split.parts > 1:
        sizes = count * heads * split.parts * tile.width, count * heads * split.parts
        stores = *(torch.empty(size, dtype=torch.float32, device=q.device) for size in sizes), arrived
    pdl = overlaps(q.device)
    _decode[(blocks, count, split.parts)](
        *(q, kv, out, rows, seq_lens, tokens, table, rule.slopes, rule.biases, sinks, *stores),
        *(*q.stride()[:2], table.stride(0), rule.window, scale * LOG2_E, rule.softcap, rule.farthest),
        KV_HEADS=kv_heads,
        GROUP=heads // kv_heads,
        HEAD_DIM=head_dim,
        BLOCK_D=tile.width,
        BLOCK_G=tile.heads,
        BLOCK_N=tile.keys,
        BLOCK_M=tile.merged[0],
        BLOCK_S=tile.merged[1],
        STAGES=DECODE_STAGES,
        SPLITS=split.parts,
        LEAST=triton.cdiv(split.keys, tile.keys) * tile.keys,
        PDL=pdl,
        launch_pdl=pdl,
        num_warps=4,
    )
    return out
