"""Joins what several programs found among a row's keys (Flash-Decoding). Knows neither queries nor keys."""

import triton
import triton.language as tl

from text_generation_server.kernels.attention.scores import LOWEST


@triton.jit
def leave(
    parts: tl.tensor,
    masses: tl.tensor,
    heads: tl.tensor,
    held: tl.tensor,
    split: tl.tensor,
    values: tl.tensor,
    mass: tl.tensor,
    SPLITS: tl.constexpr,
    BLOCK_D: tl.constexpr,
) -> None:
    """Store values [G, d] and their masses [G] of those heads [G] that are held [G], where `merged` reads them."""
    place = heads * SPLITS + split
    tl.store(parts + place[:, None] * BLOCK_D + tl.arange(0, BLOCK_D)[None, :], values, mask=held[:, None])
    tl.store(masses + place, mass, mask=held)


@triton.jit
def is_last(counter: tl.tensor, programs: tl.tensor) -> tl.tensor:
    """Whether this of so many programs is the last to come here; what all stored before is then there to be read."""
    tl.debug_barrier()
    before = tl.atomic_add(counter, 1, sem="acq_rel")
    tl.debug_barrier()
    return before == programs - 1


@triton.jit
def merged(
    parts: tl.tensor,
    masses: tl.tensor,
    heads: tl.tensor,
    used: tl.tensor,
    SPLITS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_S: tl.constexpr,
) -> tl.tensor:
    """Values [G, d] of heads [G] from what `used` programs have found, each weighted by its mass."""
    column = tl.arange(0, BLOCK_D)[None, None, :]
    most = tl.full(heads.shape, LOWEST, tl.float32)
    total = tl.zeros(heads.shape, tl.float32)
    values = tl.zeros((heads.shape[0], BLOCK_D), tl.float32)
    for first in range(0, used, BLOCK_S):
        split = first + tl.arange(0, BLOCK_S)
        place = heads[:, None] * SPLITS + split[None, :]
        held = (split < used)[None, :]
        mass = tl.load(masses + place, mask=held, other=LOWEST, cache_modifier=".cg")
        part = tl.load(parts + place[:, :, None] * BLOCK_D + column, mask=held[:, :, None], cache_modifier=".cg")
        greater = tl.maximum(most, tl.max(mass, 1))
        fade = tl.exp2(most - greater)
        weight = tl.where(held, tl.exp2(mass - greater[:, None]), 0.0)
        total = total * fade + tl.sum(weight, 1)
        values = values * fade[:, None] + tl.sum(weight[:, :, None] * tl.where(held[:, :, None], part, 0.0), 1)
        most = greater
    return values / total[:, None]
