"""Which kernel multiplies a shape, and the few worth measuring. Imports no Triton, so that any install can read it.

Everywhere in this package y[m, n] = sum over k of x[m, k] · w[n, k] with few rows m, so that reading w takes the time.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

MAX_ROWS = 128
"""From about here on reading the weights is not all that takes time, and cuBLAS does well."""

NARROW_ROWS = 32
"""Up to here the rows take little of a program's memory beside the weights."""

GEMV_ROWS = 2
"""Up to here CUDA cores keep up with the memory."""

MOST_SUMS = 8
"""Outputs of all rows that one program computes on CUDA cores."""

MAX_CANDIDATES = 12

WARP_GROUP_OUTPUTS = 64
"""Outputs a program from which weights are the left operand, as the instructions of whole warp groups want it."""

LEAST_SIZE = {4: 32, 8: 16}
"""By bits, of what shares a scale where few of them are multiplied; smaller groups of 4 bits are rare."""

SHARED_BYTES = 227 * 1024
"""Of a multiprocessor, for its programs."""

_MULTIPROCESSORS = 132
_MOST_PROGRAMS = 16 * _MULTIPROCESSORS
"""Of the GPU that candidates are made for (sm_90); they run on others too, with less even shares."""


class KernelKind(Enum):
    """Who computes."""

    CUBLAS = "cublas"
    GEMV = "gemv"
    DOT = "dot"


@dataclass(frozen=True, slots=True)
class KernelConfig:
    """A kernel and how it cuts its work; the numbers mean nothing to cuBLAS.

    A program of so many `warps` computes `block_n` outputs, `block_k` inputs at a time, and has `stages` such tiles in
    flight or in use. `splits` programs share the inputs of one block of outputs.
    """

    kernel: KernelKind
    block_n: int = 1
    block_k: int = 1
    warps: int = 1
    stages: int = 1
    splits: int = 1

    def __str__(self) -> str:
        if self.kernel is KernelKind.CUBLAS:
            return str(self.kernel.value)
        split = f" / {self.splits}" if self.splits > 1 else ""
        return f"{self.kernel.value} {self.block_n}x{self.block_k}{split} ({self.warps} warps, {self.stages} stages)"


CUBLAS = KernelConfig(KernelKind.CUBLAS)

_VECTOR = (
    KernelConfig(KernelKind.GEMV, 1, 2048, 4, 2),
    KernelConfig(KernelKind.GEMV, 1, 4096, 8, 2),
    KernelConfig(KernelKind.GEMV, 1, 1024, 4, 4),
    KernelConfig(KernelKind.GEMV, 2, 1024, 4, 2),
    KernelConfig(KernelKind.GEMV, 2, 2048, 8, 2),
    KernelConfig(KernelKind.GEMV, 1, 2048, 8, 4),
    KernelConfig(KernelKind.GEMV, 4, 512, 4, 2),
)

_TILES = (
    KernelConfig(KernelKind.DOT, 16, 256, 2, 6),
    KernelConfig(KernelKind.DOT, 16, 256, 4, 4),
    KernelConfig(KernelKind.DOT, 16, 512, 4, 3),
    KernelConfig(KernelKind.DOT, 32, 128, 4, 6),
    KernelConfig(KernelKind.DOT, 32, 256, 4, 4),
    KernelConfig(KernelKind.DOT, 64, 128, 4, 4),
    KernelConfig(KernelKind.DOT, 64, 128, 4, 6),
    KernelConfig(KernelKind.DOT, 64, 256, 4, 3),
    KernelConfig(KernelKind.DOT, 128, 128, 8, 4),
)

_WIDE_TILES = (
    KernelConfig(KernelKind.DOT, 128, 64, 8, 3),
    KernelConfig(KernelKind.DOT, 128, 64, 8, 6),
    KernelConfig(KernelKind.DOT, 128, 128, 8, 3),
    KernelConfig(KernelKind.DOT, 64, 128, 4, 4),
    KernelConfig(KernelKind.DOT, 64, 64, 4, 8),
)


CARRIER = KernelConfig(KernelKind.DOT, 64, 128, 4, 4)
"""Two programs fit beside each other, so that those that make first halves keep none waiting."""


def block_rows(rows: int) -> int:
    """The rows that the tensor-core kernel computes for so many.

    With 8 Triton takes the instructions of single warps, and a step of 8 rows took longer than one of 16 (H100).
    """
    return max(16, 1 << (rows - 1).bit_length())


def beside_each_other(choice: KernelConfig, rows: int) -> int:
    """How many programs of the tensor-core kernel a multiprocessor has room for, at least one."""
    return max(1, SHARED_BYTES // _shared(choice, rows))


def carrier(chosen: KernelConfig, rows: int, n: int, k: int) -> KernelConfig | None:
    """What multiplies where low-rank products are added (`low_rank`), `chosen` being fastest alone; or nothing."""
    if chosen.kernel is KernelKind.GEMV:
        return chosen
    if not 1 < rows <= NARROW_ROWS or k % 16 or not _fits(CARRIER, rows, n, k):
        return None
    return next(_filling(CARRIER, n, k), None)


def _shared(choice: KernelConfig, rows: int) -> int:
    return 2 * (choice.block_n + block_rows(rows)) * choice.block_k * choice.stages


def candidates(rows: int, n: int, k: int) -> list[KernelConfig]:
    """What may beat cuBLAS for x [rows, k] and w [n, k] of 16-bit numbers: at most `MAX_CANDIDATES`, best guess first.

    None above `MAX_ROWS`, nor for inputs that cannot be read 16 bytes at a time.
    """
    if rows > MAX_ROWS or k % 16:
        return []
    found: list[KernelConfig] = []
    if rows <= GEMV_ROWS:
        found += [choice for choice in _VECTOR if choice.block_n * rows <= MOST_SUMS and choice.block_k <= k]
    if rows > 1:
        tiles = _TILES if rows <= NARROW_ROWS else _WIDE_TILES
        found += [shared for tile in tiles if _fits(tile, rows, n, k) for shared in _filling(tile, n, k)]
    return found[:MAX_CANDIDATES]


_PACKED_TILES = (
    KernelConfig(KernelKind.DOT, 64, 128, 4, 6),
    KernelConfig(KernelKind.DOT, 64, 128, 4, 4),
    KernelConfig(KernelKind.DOT, 128, 128, 8, 4),
    KernelConfig(KernelKind.DOT, 128, 128, 4, 4),
)

_WIDE_PACKED_TILES = (
    KernelConfig(KernelKind.DOT, 128, 128, 8, 4),
    KernelConfig(KernelKind.DOT, 128, 128, 8, 3),
    KernelConfig(KernelKind.DOT, 64, 128, 4, 4),
    KernelConfig(KernelKind.DOT, 256, 128, 8, 3),
)


@dataclass(frozen=True, slots=True)
class Form:
    """How weights of few bits are stored: `bits` each, `size` of them with one scale; name: says that and all else."""

    name: str
    bits: int
    size: int

    def __str__(self) -> str:
        return self.name


def packed_candidates(rows: int, n: int, k: int, form: Form) -> list[KernelConfig]:
    """As `candidates`, for weights of few bits: what may beat making them plain for cuBLAS."""
    if rows > MAX_ROWS or k % 16 or form.size < LEAST_SIZE[form.bits]:
        return []
    found: list[KernelConfig] = []
    for tile in _PACKED_TILES if rows <= NARROW_ROWS else _WIDE_PACKED_TILES:
        shared = (tile.block_n * form.bits // 8 + 2 * block_rows(rows)) * tile.block_k * tile.stages
        if tile.block_n // 2 <= n and shared <= SHARED_BYTES:
            blocks, units = -(-n // tile.block_n), -(-k // tile.block_k)
            splits = 1
            while blocks * splits < 0.9 * _MULTIPROCESSORS and units >= 4 * splits:
                splits *= 2
            counts = (splits, 2 * splits, 4 * splits) if rows <= NARROW_ROWS else (splits, 2 * splits)
            found += [replace(tile, splits=count) for count in counts if count == 1 or units >= 2 * count]
    return found[:MAX_CANDIDATES]


def _fits(tile: KernelConfig, rows: int, n: int, k: int) -> bool:
    # Each program reads all of x: with lower blocks that would be many times what there is of weights.
    programs = n // tile.block_n
    return (
        tile.block_n >= min(rows, WARP_GROUP_OUTPUTS)
        and k % tile.block_k == 0
        and programs <= _MOST_PROGRAMS
        and _shared(tile, rows) <= SHARED_BYTES
    )


def _filling(tile: KernelConfig, n: int, k: int) -> Iterator[KernelConfig]:
    """This tile with the splits that give each multiprocessor a program; where it takes some, also with twice those."""
    splits = 1
    while -(-n // tile.block_n) * splits < 0.9 * _MULTIPROCESSORS:
        splits *= 2
    for count in (splits, 2 * splits) if splits > 1 else (1,):
        # A program with little more than what is in flight would never reach the memory's speed.
        if k % (tile.block_k * count) == 0 and (count == 1 or k // count >= 2 * tile.block_k * tile.stages):
            yield replace(tile, splits=count)
