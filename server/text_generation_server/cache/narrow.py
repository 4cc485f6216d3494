"""Keys and values on their way into a cache of 8 bits, divided by scales, bounded, rounded, and back. Knows no cache.

Twin of what `kernels/rotary.py` does on its way there. What is held stands for itself times the layer's scale; whoever
reads it has the scales put into what scores and answers are multiplied by.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class KVScales:
    """What a layer's keys and values are divided by before a narrow cache holds them."""

    key: float = 1.0
    value: float = 1.0


UNSCALED = KVScales()


def narrowed(kv: Tensor, dtype: torch.dtype, scales: KVScales = UNSCALED) -> Tensor:
    """Keys and values [T, 2 · kv_heads, head_dim], keys first, in `dtype`; beyond its range is the end of its range."""
    wide = kv.float()
    if scales != UNSCALED:
        keys, values = wide.chunk(2, dim=1)
        wide = torch.cat((keys / scales.key, values / scales.value), dim=1)
    most = torch.finfo(dtype).max
    return wide.clamp(-most, most).to(dtype)


class Widening:
    """Back into a wider type: numbers are looked up by their bits.

    On a CPU that takes a quarter of the time that torch takes to convert floats of 8 bits.
    """

    def __init__(self, narrow: torch.dtype, wide: torch.dtype, device: torch.device) -> None:
        self._numbers = torch.arange(256, dtype=torch.uint8, device=device).view(narrow).to(wide)

    def __call__(self, held: Tensor) -> Tensor:
        """Bytes of any shape, uint8, to the numbers that they are."""
        return self._numbers.index_select(0, held.flatten().int()).view(held.shape)
