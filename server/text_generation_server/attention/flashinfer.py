"""Attention by FlashInfer's kernels over pages of one slot, on CUDA devices. Knows no model and no ranks.

A step with long prompts goes through the prefill kernels as a whole, where a single token is a prompt of one. One with
short prompts, recorded or not, goes through kernels of our own, which can be replayed for any lengths. A step of single
tokens goes through the decode kernel on CUDA cores where each query head has keys of its own, and through our own on
tensor cores where heads share keys: on an H100 that takes 0.75 to 0.95 of the time of the better of FlashInfer's two
nearly everywhere (from 1 row of 40 keys to 128 of 2100, 4 heads a key).
Scores are scaled when a layer runs, so that all layers of a variant share a plan. Checked with FlashInfer 0.7.2.

Dimensions: T tokens of the step, R rows, S keys of all rows together, H and K query and key/value heads of the rank.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import accumulate
from typing import Any

import torch
from loguru import logger
from torch import Tensor

from text_generation_server.attention.base import (
    AttentionPlan,
    AttentionShape,
    AttentionVariant,
    DecodePlan,
    LayerAttention,
    TokenPlan,
)
from text_generation_server.attention.flashinfer_modules import HEAD_DIMS, compile_modules, modules_of, padded_head_dim
from text_generation_server.attention.triton import TritonAttention
from text_generation_server.attention.triton_plans import scores
from text_generation_server.cache.layout import RowLayout
from text_generation_server.cache.paged import PagedCache
from text_generation_server.device.copies import staged

WORKSPACE_BYTES = 256 << 20
"""What FlashInfer's documentation advises; kernels put partial results of long rows there."""

DECODE_INDEX_BYTES = 2 << 20
"""For the plan of a replayed decode kernel: a few numbers a row and block of keys."""

REPLAYED_KEYS = 1 << 22
"""Most keys that a replayed step can read, of all rows together."""

MOST_SCORES = 1 << 20
"""Queries times keys of a step's rows up to which our own kernels do. With more, attention takes part of the time."""


class Kernel:
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

    def run(self, q: Tensor, layer: LayerAttention, cache: PagedCache) -> Tensor:
        """See `AttentionPlan`."""
        # What it makes itself for a prompt it fills with zeros first.
        out = q.new_empty(q.shape[0], q.shape[1] * q.shape[2])
        self._wrapper.run(q, cache.layer(layer.layer).unsqueeze(2), q_scale=layer.scale, out=out.view(q.shape))
        return out


class FlashInferPlan:
    """One step: a planned kernel for each variant."""

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        self._kernels = kernels

    def run(self, q: Tensor, layer: LayerAttention, cache: PagedCache) -> Tensor:
        """See `AttentionPlan`."""
        return self._kernels[layer.variant].run(q, layer, cache)


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
        kernels: Sequence[Kernel],
        sizes: tuple[int, ...],
        *,
        rows: Tensor,
        slot_table: Tensor,
        ends: Tensor,
        slots: Tensor,
    ) -> None:
        super().__init__(kernels)
        self._sizes, self._rows, self._table, self._ends, self._slots = sizes, rows, slot_table, ends, slots
        self._last_page_lens = staged([1] * len(rows), torch.int32, rows.device)

    def suits(self, kv_lens: Sequence[int]) -> bool:
        """See `DecodePlan`."""
        return sum(kv_lens) <= len(self._slots)

    def prepare(self, kv_lens: Sequence[int]) -> None:
        """See `DecodePlan`."""
        from text_generation_server.kernels.slots import gather_slots

        ends = _ends(kv_lens, self._rows.device)
        for kernel in self._kernels:
            kernel.plan(ends, self._slots[: sum(kv_lens)], self._last_page_lens, *self._sizes)
        gather_slots(self._table, self._rows, self._ends, self._slots)


class FlashInferAttention:
    """Makes plans for models of one shape."""

    name = "flashinfer"
    slot_major = True

    def __init__(self, shape: AttentionShape) -> None:
        compile_modules(modules_of(shape), logger.info)
        self.head_dim = padded_head_dim(shape.state.head_dim)
        state = replace(shape.state, head_dim=self.head_dim)
        self._variants, self._state = shape.variants, state
        self._sizes = shape.heads, state.kv_heads, state.head_dim, 1
        self._workspace = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=state.device)
        self._prefill = [self._prefill_kernel(variant) for variant in shape.variants]
        self._ours = TritonAttention(replace(shape, state=state))
        self._shared = shape.heads > state.kv_heads
        if not self._shared:
            self._decode = [self._decode_kernel(variant) for variant in shape.variants]
            self._replayed_slots = torch.empty(REPLAYED_KEYS, dtype=torch.int32, device=state.device)

    @staticmethod
    def why_not(shape: AttentionShape) -> str | None:
        """None, or what FlashInfer lacks for such a model, or this machine for FlashInfer."""
        state = shape.state
        if state.device.type != "cuda":
            return f"it needs a CUDA device, not {state.device.type}"
        if find_spec("flashinfer") is None:
            return "it is not installed (extra `cuda`)"
        if state.dtype not in (torch.float16, torch.bfloat16):
            return f"it computes in float16 and bfloat16, not {state.dtype}"
        if state.head_dim > HEAD_DIMS[-1]:
            return f"heads have {state.head_dim} numbers, more than {HEAD_DIMS[-1]}"
        if any(variant.alibi is not None for variant in shape.variants):
            return "its linear biases know neither other slopes nor ranks"
        return TritonAttention.why_not(shape)

    def plan(self, layout: RowLayout) -> AttentionPlan:
        """Prepare one step."""
        single = max(layout.query_lens) == 1
        if self._shared if single else scores(layout.query_lens, layout.kv_lens) <= MOST_SCORES:
            return self._ours.plan(layout)
        return LatePlan(partial(self._planned, layout, single))

    def _planned(self, layout: RowLayout, single: bool) -> FlashInferPlan:
        from text_generation_server.kernels.slots import gather_slots

        rows, keys = len(layout.rows), sum(layout.kv_lens)
        table, ends = layout.slot_table, _ends(layout.kv_lens, layout.slot_table.device)
        slots = torch.empty(keys, dtype=torch.int32, device=table.device)
        gather_slots(table, layout.device_rows, ends.to(table.device, non_blocking=True), slots)
        last_page_lens = staged([1] * rows, torch.int32, table.device)
        arguments: tuple[object, ...] = (ends, slots, last_page_lens, *self._sizes)
        kernels = self._decode if single else self._prefill
        if not single:
            arguments = (_ends(layout.query_lens, table.device), *arguments)
        for kernel in kernels:
            kernel.plan(*arguments)
        return FlashInferPlan(kernels)

    def decode_plans(self, rows: Tensor, kv_lens: Tensor, slot_table: Tensor) -> Sequence[DecodePlan]:
        """See `AttentionBackend`."""
        if self._shared:
            return self._ours.decode_plans(rows, kv_lens, slot_table)
        ends = torch.zeros(len(rows) + 1, dtype=torch.int32, device=rows.device)
        fixed = {
            "use_cuda_graph": True,
            "paged_kv_indptr_buffer": ends,
            "paged_kv_indices_buffer": self._replayed_slots,
            "paged_kv_last_page_len_buffer": torch.ones(len(rows), dtype=torch.int32, device=rows.device),
        }
        kernels = [self._decode_kernel(variant, **fixed) for variant in self._variants]
        slots = self._replayed_slots
        return (FlashInferDecodePlan(kernels, self._sizes, rows=rows, slot_table=slot_table, ends=ends, slots=slots),)

    def token_plans(self, tokens: int, slot_table: Tensor) -> Sequence[TokenPlan]:
        """See `AttentionBackend`: our own, for FlashInfer's plans of prompts depend on their lengths."""
        return self._ours.token_plans(tokens, slot_table, MOST_SCORES)

    def _decode_kernel(self, variant: AttentionVariant, **fixed: object) -> Kernel:
        import flashinfer  # takes seconds, and is not there on every machine

        wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(self._workspace, "NHD", **fixed)
        if fixed:
            indices = torch.empty(DECODE_INDEX_BYTES, dtype=torch.uint8, device=self._state.device)
            wrapper.reset_workspace_buffer(self._workspace, indices)
        return Kernel(wrapper, self._options(variant))

    def _prefill_kernel(self, variant: AttentionVariant) -> Kernel:
        import flashinfer

        wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(self._workspace, "NHD")
        return Kernel(wrapper, {"causal": True, **self._options(variant)})

    def _options(self, variant: AttentionVariant) -> dict[str, Any]:
        return {
            "window_left": -1 if variant.window is None else variant.window - 1,
            "logits_soft_cap": variant.softcap,
            "sm_scale": 1.0,
            "q_data_type": self._state.dtype,
            "kv_data_type": self._state.dtype,
        }


def _ends(lens: Sequence[int], device: torch.device) -> Tensor:
    """Where rows of these lengths end [R + 1] int32, from 0, on the host."""
    return staged([*accumulate(lens, initial=0)], torch.int32, device)
