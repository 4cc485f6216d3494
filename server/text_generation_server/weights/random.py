"""A checkpoint that makes up whatever tensor is asked for, to measure speed without weights. Knows no spec.

A tensor depends on its name and shape alone, so that ranks, which cut it afterwards, and later starts agree.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from threading import Lock

import torch
from torch import Tensor

GAIN = 1.5
"""What a matrix multiplies the length of a vector by, on average: with 1, answers soon repeat one token."""

SPREAD = 0.02
"""Standard deviation of biases, and of norms' weights around one."""

EXPONENTS, SHARING, MAGNITUDE = ("_scale", "_scales"), 32, 3.0
"""Ends of names of scales, which bytes are the exponents of, 127 more than they are; how many numbers share one; and
how large these are on average."""


class RandomCheckpoint:
    """Tensors of `dtype`, made on `device`, that keep activations near 1 and let greedy answers vary.

    Embeddings are drawn as other matrices are, which makes them small beside what layers add: otherwise a model whose
    output head is its embedding would repeat its input. progress: is told the bytes, once all are made.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device, progress: Callable[[int, int], None]) -> None:
        self._dtype = dtype
        self._device = device
        self._progress = progress
        self._made = 0
        self._lock = Lock()

    def has(self, name: str) -> bool:
        """False: what some checkpoints lack and others have, this one lacks, whatever its name."""
        return False

    def view(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: torch.dtype | None = None,
        others: Sequence[tuple[int, ...]] = (),
    ) -> Tensor:
        """The tensor of this name with this shape; whole numbers have all their bits at random, but those of scales."""
        generator = torch.Generator(self._device).manual_seed(_seed(name))
        if dtype is torch.uint8 and name.endswith(EXPONENTS):
            scale = GAIN / MAGNITUDE / math.sqrt(SHARING * shape[-1])
            made = torch.full(shape, 127 + round(math.log2(scale)), dtype=dtype, device=self._device)
            self._count(made)
            return made
        if dtype is not None and not dtype.is_floating_point:
            bits = torch.iinfo(dtype)
            words = torch.empty(shape, dtype=dtype, device=self._device).random_(
                bits.min, bits.max, generator=generator
            )
            self._count(words)
            return words
        mean, spread = _distribution(name, shape)
        made = torch.empty(shape, dtype=self._dtype, device=self._device).normal_(mean, spread, generator=generator)
        made = made if dtype is None else made.to(dtype)
        self._count(made)
        return made

    def text(self, name: str) -> str:
        """Nothing."""
        return ""

    def _count(self, made: Tensor) -> None:
        with self._lock:
            self._made += made.nbytes

    def leave(self, name: str) -> None:
        """Nothing is left over."""

    leave_zeros = leave

    def check_consumed(self) -> None:
        """Report what was made; nothing is left over."""
        self._progress(self._made, self._made)


def _seed(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6])


def _distribution(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and standard deviation. Norms have one dimension, or those of several heads, and a name that says so."""
    if name.endswith(".bias"):
        return 0.0, SPREAD
    if len(shape) == 1 or "norm" in name.removesuffix(".weight").rpartition(".")[2]:
        return 1.0, SPREAD
    return 0.0, GAIN / math.sqrt(shape[-1])
