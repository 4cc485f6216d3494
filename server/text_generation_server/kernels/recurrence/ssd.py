"""The recurrence of a state space layer of heads over a step's rows. Twin: `layers/ssd.py::TorchSsd`. Knows no model.

A program has one head of a row, or some of its channels, and what is kept of them in registers, for all of the row's
tokens. A prompt's tokens are taken in chunks: within one they see each other by matrix products (state space duality).

Dimensions: T tokens, P channels of a head, N numbers that are kept of each.
"""

import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.attention.sizes import multiprocessors
from text_generation_server.kernels.dependent_launch import overlaps
from text_generation_server.kernels.recurrence.scan import softplus

SINGLE_CHANNELS = 16
"""Of a program where every row has one token: little to do for each, so that few rows fill a GPU."""

TOKENS, WIDE_TOKENS = 64, 32
"""Of a chunk; of numbers of 16 and of 32 bits."""

NARROWEST = 16
"""Channels and numbers in products: tensor cores take no fewer."""

SHARING_PROGRAMS = 4
"""Programs on each multiprocessor that share the rows of a replayed step, however many there are."""


@triton.jit
def _one(
    tokens: tl.tuple, at: tl.tensor, state: tl.tensor, shape: tl.tuple, head: tl.tuple, masks: tl.tuple
) -> tuple[tl.tensor, tl.tensor]:
    """One token: its outputs [P], before the gate, and the state behind it."""
    x, write, read, steps = tokens
    x_stride, steps_stride = shape
    rate, passed, least, low, high = head
    inside, kept = masks
    length = tl.load(steps + at * steps_stride).to(tl.float32)
    length = tl.minimum(tl.maximum(softplus(length + least), low), high)
    value = tl.load(x + at * x_stride, mask=inside, other=0.0).to(tl.float32)
    added = tl.load(write + at * x_stride, mask=kept, other=0.0).to(tl.float32)
    seen = tl.load(read + at * x_stride, mask=kept, other=0.0).to(tl.float32)
    state = state * tl.exp(length * rate) + (length * value)[:, None] * added[None, :]
    return tl.sum(state * seen[None, :], 1) + passed * value, state


@triton.jit
def _chunk(
    tokens: tl.tuple,
    token: tl.tensor,
    held: tl.tensor,
    state: tl.tensor,
    shape: tl.tuple,
    head: tl.tuple,
    masks: tl.tuple,
) -> tuple[tl.tensor, tl.tensor]:
    """Tokens [t], of which some are `held`: their outputs [t, P], before the gate, and the state behind them."""
    x, write, read, steps = tokens
    x_stride, steps_stride = shape
    rate, passed, least, low, high = head
    inside, kept = masks
    length = tl.load(steps + token * steps_stride, mask=held, other=0.0).to(tl.float32)
    length = tl.where(held, tl.minimum(tl.maximum(softplus(length + least), low), high), 0.0)
    faded = tl.cumsum(length * rate, 0)
    whole = tl.sum(length * rate, 0)
    place = token[:, None] * x_stride
    value = tl.load(x[None, :] + place, mask=held[:, None] & inside[None, :], other=0.0)
    added = tl.load(write[None, :] + place, mask=held[:, None] & kept[None, :], other=0.0)
    seen = tl.load(read[None, :] + place, mask=held[:, None] & kept[None, :], other=0.0)
    number = tl.arange(0, token.shape[0])
    causal = number[:, None] >= number[None, :]
    between = tl.exp(tl.where(causal, faded[:, None] - faded[None, :], float("-inf")))
    between *= tl.dot(seen, added.T, input_precision="ieee")
    entering = length[:, None] * value.to(tl.float32)
    out = tl.dot(seen, state.T.to(seen.dtype), input_precision="ieee") * tl.exp(faded)[:, None]
    out = tl.dot(between.to(seen.dtype), entering.to(seen.dtype), out, input_precision="ieee")
    left = (entering * tl.exp(whole - faded)[:, None]).to(added.dtype)
    state = tl.dot(left.T, added, state * tl.exp(whole), input_precision="ieee")
    return out + passed * value.to(tl.float32), state


@triton.jit
def _row(
    sources: tl.tuple,
    strides: tl.tuple,
    state_of: tl.tuple,
    weights: tl.tuple,
    out: tl.tensor,
    index: tl.tensor,
    part: tl.tensor,
    HEADS: tl.constexpr,
    GROUPS: tl.constexpr,
    P: tl.constexpr,
    N: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_T: tl.constexpr,
    WAITS: tl.constexpr,
) -> None:
    """Some channels of a head of one row. BLOCK_T: 1 where every row has one token. WAITS: see `_row` of `scan.py`."""
    inputs, gate, steps = sources
    x_stride, gate_stride, steps_stride = strides
    sums, rows, ends = state_of
    decay, skip, step_bias, low, high = weights
    parts: tl.constexpr = (P + BLOCK_P - 1) // BLOCK_P
    width: tl.constexpr = HEADS * P
    number, channel, n = part // parts, part % parts * BLOCK_P + tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_N)
    masks = (channel < P, n < N)
    channel += number * P
    both = masks[0][:, None] & masks[1][None, :]
    head = (tl.load(decay + number), tl.load(skip + number), tl.load(step_bias + number), low, high)
    written = inputs + width + number // (HEADS // GROUPS) * N + n
    tokens = (inputs + channel, written, written + GROUPS * N, steps + number)
    shape = (x_stride, steps_stride)
    place = sums + tl.load(rows + index) * (width * N) + channel[:, None] * N + n[None, :]
    if BLOCK_T == 1:
        state = tl.load(place, mask=both, other=0.0)
        first = index.to(tl.int64)
        past = first + 1
    if WAITS:
        gdc_launch_dependents()
        gdc_wait()
    if BLOCK_T > 1:
        state = tl.load(place, mask=both, other=0.0)
        first = tl.load(ends + index)
        past = tl.load(ends + index + 1)
    if (BLOCK_T == 1) | (past - first == 1):
        y, state = _one(tokens, first, state, shape, head, masks)
        through = tl.load(gate + first * gate_stride + channel, mask=masks[0], other=0.0).to(tl.float32)
        y *= through * tl.sigmoid(through)
        tl.store(out + first * width + channel, y.to(out.dtype.element_ty), mask=masks[0])
    elif BLOCK_T > 1:
        for start in range(first, past, BLOCK_T):
            token = start + tl.arange(0, BLOCK_T)
            held = token < past
            y, state = _chunk(tokens, token, held, state, shape, head, masks)
            mask = held[:, None] & masks[0][None, :]
            through = tl.load(gate + token[:, None] * gate_stride + channel[None, :], mask=mask, other=0.0)
            through = through.to(tl.float32)
            y *= through * tl.sigmoid(through)
            tl.store(out + token[:, None] * width + channel[None, :], y.to(out.dtype.element_ty), mask=mask)
    tl.store(place, state, mask=both)


@triton.jit
def _ssd(
    inputs: tl.tensor,
    gate: tl.tensor,
    steps: tl.tensor,
    sums: tl.tensor,
    rows: tl.tensor,
    ends: tl.tensor,
    count: tl.tensor,
    decay: tl.tensor,
    skip: tl.tensor,
    step_bias: tl.tensor,
    out: tl.tensor,
    low: float,
    high: float,
    x_stride: int,
    gate_stride: int,
    steps_stride: int,
    HEADS: tl.constexpr,
    GROUPS: tl.constexpr,
    P: tl.constexpr,
    N: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_T: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    sources, strides = (inputs, gate, steps), (x_stride, gate_stride, steps_stride)
    state_of, weights = (sums, rows, ends), (decay, skip, step_bias, low, high)
    parts: tl.constexpr = HEADS * ((P + BLOCK_P - 1) // BLOCK_P)
    if count is None:
        index, part = tl.program_id(0) // parts, tl.program_id(0) % parts
        _row(
            sources, strides, state_of, weights, out, index, part,
            HEADS, GROUPS, P, N, BLOCK_P, BLOCK_N, BLOCK_T, PDL,
        )  # fmt: skip
    else:
        if PDL:
            gdc_launch_dependents()
            gdc_wait()
        for piece in range(tl.program_id(0), tl.load(count).to(tl.int32) * parts, tl.num_programs(0)):
            _row(
                sources, strides, state_of, weights, out, piece // parts, piece % parts,
                HEADS, GROUPS, P, N, BLOCK_P, BLOCK_N, BLOCK_T, False,
            )  # fmt: skip


def ssd(
    inputs: Tensor,
    gate: Tensor,
    steps: Tensor,
    sums: Tensor,
    rows: Tensor,
    ends: Tensor,
    are_singles: bool,
    count: Tensor | None,
    out: Tensor,
    decay: Tensor,
    skip: Tensor,
    step_bias: Tensor,
    head_dim: int,
    groups: int,
    limits: tuple[float, float],
) -> Tensor:
    """Write (S · C + skip · x) · silu(gate) to out [T, H · P], for S = S · exp(t · decay) + t · x ⊗ B.

    t is softplus(step + step_bias), kept between limits. All is computed in float32, but that products of a chunk's
    tokens take inputs of the type of `inputs`.

    Args:
        inputs: [T, H · P + 2 · groups · N]: x, then B, then C. gate: [T, H · P]. steps: [T, H]. Tokens contiguous, at
            any distance.
        sums: [rows, H · P, N] float32, contiguous: S of each row, of which those of the step's rows go on.
        rows: [R] int64. ends: [R + 1] int64, from 0, where each row's tokens begin and end; each row has one.
        are_singles: whether each row has one token.
        count: [1] int64, how many of the rows there are; None for all.
        out: contiguous; tokens of no row stay as they are.
        decay: [H], below 0. skip, step_bias: [H]. All float32.
        head_dim: P.
    """
    heads, numbers = len(decay), sums.shape[2]
    width = max(NARROWEST, int(triton.next_power_of_2(head_dim)))
    channels = min(width, SINGLE_CHANNELS) if are_singles else width
    pieces = rows.shape[0] * heads * int(triton.cdiv(head_dim, channels))
    pdl = overlaps(inputs.device)
    _ssd[(pieces if count is None else min(pieces, SHARING_PROGRAMS * multiprocessors(inputs.device)),)](
        *(inputs, gate, steps, sums, rows, ends, count, decay, skip, step_bias, out, *map(float, limits)),
        *(inputs.stride(0), gate.stride(0), steps.stride(0)),
        HEADS=heads,
        GROUPS=groups,
        P=head_dim,
        N=numbers,
        BLOCK_P=channels,
        BLOCK_N=max(NARROWEST, triton.next_power_of_2(numbers)),
        BLOCK_T=1 if are_singles else TOKENS if inputs.element_size() == 2 else WIDE_TOKENS,
        PDL=pdl,
        launch_pdl=pdl,
        num_warps=2 if are_singles else 8,
    )
    return out
