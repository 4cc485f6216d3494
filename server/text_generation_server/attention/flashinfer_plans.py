"""FlashInfer's kernels, planned for one step or for many. Makes no kernel, and imports nothing of FlashInfer.

Dimensions: T tokens of the step, R rows, S keys of all rows together, H query heads of the rank, d head_dim.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from math import log
from typing import Any

import torch
from torch import Tensor

from text_generation_server.attention.base import AttentionPlan, LayerAttention
from text_generation_server.attention.triton_plans import SingleTokens
from text_generation_server.cache.paged import PagedCache
from text_generation_server.device.copies import staged

LN_2 = log(2)
"""FlashInfer's logarithms are of base 2."""


class PlannedWrapper:
    """One of FlashInfer's wrappers, for one variant. Planning it copies from one pinned buffer of its own.

    A copy may wait for the device a step long: only when it is done may the next plan be written there.
    """

    def __init__(self, wrapper: Any, options: dict[str, Any]) -> None:
        self._wrapper = wrapper
        self._options = options
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def plan(self, *arguments: object) -> None:
        """Prepare for certain rows; enqueues copies."""
        self._copied.synchronize()
        self._wrapper.plan(*arguments, **self._options)
        self._copied.record()

    def write(self, q: Tensor, layer: LayerAttention, cache: PagedCache, out: Tensor) -> Tensor:
        """See `AttentionPlan`; the answer is put into `out` [T, H · d], as FlashInfer's own begins with zeros.

        Sinks take their share afterwards: of all exponentials' sum, whose logarithm comes with the answer.
        """
        kv, answer = cache.layer(layer.layer).unsqueeze(2), out.view(q.shape)
        if layer.sinks is None:
            self._wrapper.run(q, kv, q_scale=layer.scale, out=answer)
        else:
            _, sums = self._wrapper.run(q, kv, q_scale=layer.scale, out=answer, return_lse=True)
            answer.mul_((sums * LN_2 - layer.sinks).sigmoid_()[..., None])
        return out


class FlashInferPlan:
    """One step: a planned kernel for each variant."""

    def __init__(self, kernels: Sequence[PlannedWrapper]) -> None:
        self._kernels = kernels

    def run(self, q: Tensor, layer: LayerAttention, cache: PagedCache) -> Tensor:
        """See `AttentionPlan`."""
        return self._kernels[layer.variant].write(q, layer, cache, answers_for(q))


class PromptsPlan:
    """A step whose prompts FlashInfer attends with, and whose single tokens our own kernel does.

    prompts: a planned kernel for each variant. tokens: of the prompts, as an index into the step's. singles: the rest,
    None for none.
    """

    def __init__(self, prompts: Sequence[PlannedWrapper], tokens: slice | Tensor, singles: SingleTokens | None) -> None:
        self._prompts, self._tokens, self._singles = prompts, tokens, singles

    def run(self, q: Tensor, layer: LayerAttention, cache: PagedCache) -> Tensor:
        """See `AttentionPlan`."""
        out, kernel, tokens = answers_for(q), self._prompts[layer.variant], self._tokens
        if isinstance(tokens, slice):
            kernel.write(q[tokens], layer, cache, out[tokens])
        else:
            mine = q[tokens]
            out[tokens] = kernel.write(mine, layer, cache, answers_for(mine))
        return out if self._singles is None else self._singles.write(q, layer, cache, out)


class LatePlan:
    """A plan that is made when the first layer asks for it: by then the device has that layer's products to do."""

    def __init__(self, make: Callable[[], AttentionPlan]) -> None:
        self._make = make
        self._made: AttentionPlan | None = None

    def run(self, q: Tensor, layer: LayerAttention, cache: PagedCache) -> Tensor:
        """See `AttentionPlan`."""
        if self._made is None:
            self._made = self._make()
        return self._made.run(q, layer, cache)


class FlashInferDecodePlan(FlashInferPlan):
    """Decode steps of one number of rows, by kernels that find everything always in the same place.

    sizes: as plans want them. rows: [R] int64. ends: [R + 1] int32, where the rows' keys end among `slots` [S] int32.
    """

    def __init__(
        self,
        kernels: Sequence[PlannedWrapper],
        sizes: tuple[int, ...],
        *,
        rows: Tensor,
        block_table: Tensor,
        ends: Tensor,
        slots: Tensor,
    ) -> None:
        super().__init__(kernels)
        self._sizes, self._rows, self._table, self._ends, self._slots = sizes, rows, block_table, ends, slots
        self._last_page_lens = staged([1] * len(rows), torch.int32, rows.device)

    def suits(self, seq_lens: Sequence[int]) -> bool:
        """See `DecodePlan`."""
        return sum(seq_lens) <= len(self._slots)

    def prepare(self, seq_lens: Sequence[int]) -> None:
        """See `DecodePlan`."""
        from text_generation_server.kernels.slots import gather_slots

        ends = ends_of(seq_lens, self._rows.device)
        for kernel in self._kernels:
            kernel.plan(ends, self._slots[: sum(seq_lens)], self._last_page_lens, *self._sizes)
        gather_slots(self._table, self._rows, self._ends, self._slots)


def answers_for(q: Tensor) -> Tensor:
    """[T, H · d] of queries [T, H, d], of any content."""
    return q.new_empty(q.shape[0], q.shape[1] * q.shape[2])


def ends_of(lens: Sequence[int], device: torch.device) -> Tensor:
    """Where rows of these lengths end [R + 1] int32, from 0, on the host."""
    return staged([*accumulate(lens, initial=0)], torch.int32, device)
