"""The pool of key and value slots of one rank. Knows neither who holds a slot nor what attention does with it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from text_generation_server.cache.narrow import UNSCALED, KVScales, Widening, narrowed


@dataclass(frozen=True, slots=True)
class PagedSpec:
    """The keys and values that one rank of a model keeps for every token; satisfies `StateSpec`.

    kv_heads: of the rank. dtype: that they are computed in. slot_major: a token's heads lie together, as GPU kernels
    want them, instead of a head's tokens. unshared: see `StateSpec`; keys may depend on the length that their sequence
    may reach. narrow: a type of 8 bits that they are kept in, None for `dtype`.
    """

    num_layers: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device
    slot_major: bool = False
    unshared: str = ""
    rewinds: bool = True
    bytes_per_row: int = 0
    narrow: torch.dtype | None = None

    @property
    def held(self) -> torch.dtype:
        """What is in the cache."""
        return self.narrow or self.dtype

    @property
    def bytes_per_slot(self) -> int:
        """Bytes of one token in all layers."""
        return 2 * self.num_layers * self.kv_heads * self.head_dim * self.held.itemsize

    def allocate(self, num_slots: int, num_rows: int, max_len: int) -> "PagedCache":
        """See `StateSpec`."""
        return PagedCache(self, num_slots)


class PagedCache:
    """Keys and values by layer and slot; a slot holds one token.

    A layer is one tensor. Head-major [2 · kv_heads, slots, head_dim], key heads first: a token is written and a
    sequence gathered with one operation for keys and values together, ready for batched matrix products.
    Slot-major [slots, 2, kv_heads, head_dim], keys first: a page of one slot, for kernels that read pages themselves.
    The pool is not cleared. Whoever reads a slot must have written it.
    """

    def __init__(self, state: PagedSpec, num_slots: int) -> None:
        shape: tuple[int, ...] = (2 * state.kv_heads, num_slots, state.head_dim)
        if state.slot_major:
            shape = (num_slots, 2, state.kv_heads, state.head_dim)
        self.num_slots = num_slots
        self._kv_heads = state.kv_heads
        self._slot_major = state.slot_major
        self._narrow = state.narrow
        self._widen = None if state.narrow is None else Widening(state.narrow, state.dtype, state.device)
        self._layers = [torch.empty(shape, dtype=state.held, device=state.device) for _ in range(state.num_layers)]

    def admit(self, rows: Tensor) -> None:
        """See `State`: a sequence reads only what it has written, so there is nothing to forget."""

    @property
    def kv_heads(self) -> int:
        """Of the rank."""
        return self._kv_heads

    def write(self, layer: int, slots: Tensor, kv: Tensor, scales: KVScales = UNSCALED) -> None:
        """Put keys and values [T, 2 · kv_heads, head_dim], keys first, into slots [T] int64.

        scales: of the layer, where the cache is narrow.
        """
        pool = self._layers[layer]
        if self._narrow is not None:  # bytes, as torch copies no floats of 8 bits by index
            kv, pool = narrowed(kv, self._narrow, scales).view(torch.uint8), pool.view(torch.uint8)
        if self._slot_major:
            pool.index_copy_(0, slots, kv.view(len(kv), 2, self._kv_heads, -1))
        else:
            pool.index_copy_(1, slots, kv.transpose(0, 1))

    def gather(self, layer: int, slots: Tensor) -> Tensor:
        """What is held in slots [S], as it is computed with: [2 · kv_heads, S, head_dim]."""
        pool = self._layers[layer] if self._widen is None else self._layers[layer].view(torch.uint8)
        if self._slot_major:
            found = pool.index_select(0, slots).flatten(1, 2).transpose(0, 1)
        else:
            found = pool.index_select(1, slots)
        return found if self._widen is None else self._widen(found)

    def layer(self, layer: int) -> Tensor:
        """Keys and values of a layer, in the order that the state asked for."""
        return self._layers[layer]

    def keys(self, layer: int) -> Tensor:
        """Keys of a layer as a view [slots, kv_heads, head_dim]."""
        held = self._layers[layer]
        return held[:, 0] if self._slot_major else held[: self._kv_heads].transpose(0, 1)

    def values(self, layer: int) -> Tensor:
        """Values of a layer as a view [slots, kv_heads, head_dim]."""
        held = self._layers[layer]
        return held[:, 1] if self._slot_major else held[self._kv_heads :].transpose(0, 1)
