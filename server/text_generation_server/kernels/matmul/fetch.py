"""Asks for what will be read soon. Knows not what it is."""

import triton
import triton.language as tl


@triton.jit
def fetch(w: tl.tensor, BYTES: tl.constexpr, PIECES: tl.constexpr) -> None:
    """Into the L2 cache, BYTES of each row w [n, 1] in PIECES."""
    address = w.to(tl.int64) + tl.arange(0, PIECES)[None, :] * (BYTES // PIECES)
    size = tl.full(address.shape, BYTES // PIECES, tl.int32)
    tl.inline_asm_elementwise(
        "cp.async.bulk.prefetch.L2.global [$1], $2; mov.b32 $0, 0;",
        "=r,l,r",
        [address, size],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


@triton.jit
def fetch_run(start: tl.tensor, size: int, THREADS: tl.constexpr) -> None:
    """Into the L2 cache, nearly all of `size` bytes from a multiple of 16 on."""
    piece = size // THREADS // 16 * 16
    if piece > 0:
        address = start.to(tl.int64) + tl.arange(0, THREADS) * piece
        tl.inline_asm_elementwise(
            "cp.async.bulk.prefetch.L2.global [$1], $2; mov.b32 $0, 0;",
            "=r,l,r",
            [address, tl.full((THREADS,), 0, tl.int32) + piece],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )


@triton.jit
def to_l1(places: tl.tensor) -> None:
    """Into the multiprocessor's cache, what is at these places."""
    tl.inline_asm_elementwise(
        "prefetch.global.L1 [$1]; mov.b32 $0, 0;",
        "=r,l",
        [places.to(tl.int64)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )
