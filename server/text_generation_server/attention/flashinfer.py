"""Attention by FlashInfer's kernels over pages of one slot, on CUDA devices. Knows no model and no ranks.

Long prompts go through FlashInfer's prefill kernels, single tokens beside them through our own: to the prefill kernels
a token is a prompt, which takes six times as long (H200, 8B model, 128 rows of 640 keys: 16 ms a step instead of 2.7).
Short prompts, recorded or not, go through kernels of our own, which can be replayed for any lengths. A step of single
tokens goes through the decode kernel on CUDA cores where each query head has keys of its own, and through our own on
tensor cores where heads share keys: on an H100 that takes 0.75 to 0.95 of the time of the better of FlashInfer's two
nearly everywhere (from 1 row of 40 keys to 128 of 2100, 4 heads a key).
Scores are scaled when a layer runs, so that all layers of a variant share a plan. Checked with FlashInfer 0.7.2.

Dimensions: T tokens of the step, R rows, S keys of all rows together, H and K query and key/value heads of the rank.
"""

from collections.abc import Sequence
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
    TokenPlan,
)
from text_generation_server.attention.flashinfer_modules import HEAD_DIMS, compile_modules, modules_of, padded_head_dim
from text_generation_server.attention.flashinfer_plans import (
    FlashInferDecodePlan,
    FlashInferPlan,
    LatePlan,
    PlannedWrapper,
    PromptsPlan,
    ends_of,
)
from text_generation_server.attention.triton import TritonAttention
from text_generation_server.attention.triton_plans import prompt_scores
from text_generation_server.cache.layout import RowLayout
from text_generation_server.device.copies import staged, upload

WORKSPACE_BYTES = 256 << 20
"""What FlashInfer's documentation advises; kernels put partial results of long rows there."""

DECODE_INDEX_BYTES = 2 << 20
"""For the plan of a replayed decode kernel: a few numbers a row and block of keys."""

REPLAYED_KEYS = 1 << 22
"""Most keys that a replayed step can read, of all rows together."""

MOST_SCORES = 1 << 22
"""Queries times keys of a step's prompts up to which our own kernels do, which can be replayed. FlashInfer's take less
of the device's time, but the host takes longer to launch such a step than it saves (docs/benchmarks.md#mixed-steps)."""


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
    def cached_head_dim(shape: AttentionShape) -> int:
        """See `BackendClass`."""
        return padded_head_dim(shape.state.head_dim)

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
        if self._shared if single else prompt_scores(layout.query_lens, layout.seq_lens) <= MOST_SCORES:
            return self._ours.plan(layout)
        return LatePlan(partial(self._single_tokens if single else self._with_prompts, layout))

    def _single_tokens(self, layout: RowLayout) -> FlashInferPlan:
        arguments = self._keys_of(layout.block_table, layout.device_rows, layout.seq_lens)
        for kernel in self._decode:
            kernel.plan(*arguments)
        return FlashInferPlan(self._decode)

    def _with_prompts(self, layout: RowLayout) -> PromptsPlan:
        starts = [*accumulate(layout.query_lens, initial=0)]
        prompts = [row for row, tokens in enumerate(layout.query_lens) if tokens > 1]
        query_lens = [layout.query_lens[row] for row in prompts]
        (rows,) = upload(layout.block_table.device, [layout.rows[row] for row in prompts])
        arguments = self._keys_of(layout.block_table, rows, [layout.seq_lens[row] for row in prompts])
        query_ends = ends_of(query_lens, layout.block_table.device)
        for kernel in self._prefill:
            kernel.plan(query_ends, *arguments)
        first, past = starts[prompts[0]], starts[prompts[-1] + 1]
        tokens: slice | Tensor = slice(first, past)
        if past - first > sum(query_lens):
            numbers = [token for row in prompts for token in range(starts[row], starts[row + 1])]
            (tokens,) = upload(layout.block_table.device, numbers)
        return PromptsPlan(self._prefill, tokens, self._ours.single_tokens(layout))

    def _keys_of(self, table: Tensor, rows: Tensor, seq_lens: Sequence[int]) -> tuple[object, ...]:
        """What plans want to know of the keys of these rows [r] int64."""
        from text_generation_server.kernels.slots import gather_slots

        ends = ends_of(seq_lens, table.device)
        slots = torch.empty(sum(seq_lens), dtype=torch.int32, device=table.device)
        gather_slots(table, rows, ends.to(table.device, non_blocking=True), slots)
        return ends, slots, staged([1] * len(seq_lens), torch.int32, table.device), *self._sizes

    def decode_plans(self, rows: Tensor, seq_lens: Tensor, block_table: Tensor) -> Sequence[DecodePlan]:
        """See `AttentionBackend`."""
        if self._shared:
            return self._ours.decode_plans(rows, seq_lens, block_table)
        ends = torch.zeros(len(rows) + 1, dtype=torch.int32, device=rows.device)
        fixed = {
            "use_cuda_graph": True,
            "paged_kv_indptr_buffer": ends,
            "paged_kv_indices_buffer": self._replayed_slots,
            "paged_kv_last_page_len_buffer": torch.ones(len(rows), dtype=torch.int32, device=rows.device),
        }
        kernels = [self._decode_kernel(variant, **fixed) for variant in self._variants]
        slots = self._replayed_slots
        return (FlashInferDecodePlan(kernels, self._sizes, rows=rows, block_table=block_table, ends=ends, slots=slots),)

    def token_plans(self, tokens: int, block_table: Tensor) -> Sequence[TokenPlan]:
        """See `AttentionBackend`: our own, for FlashInfer's plans of prompts depend on their lengths."""
        return self._ours.token_plans(tokens, block_table, MOST_SCORES)

    def _decode_kernel(self, variant: AttentionVariant, **fixed: object) -> PlannedWrapper:
        import flashinfer  # takes seconds, and is not there on every machine

        wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(self._workspace, "NHD", **fixed)
        if fixed:
            indices = torch.empty(DECODE_INDEX_BYTES, dtype=torch.uint8, device=self._state.device)
            wrapper.reset_workspace_buffer(self._workspace, indices)
        return PlannedWrapper(wrapper, self._options(variant))

    def _prefill_kernel(self, variant: AttentionVariant) -> PlannedWrapper:
        import flashinfer

        wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(self._workspace, "NHD")
        return PlannedWrapper(wrapper, {"causal": True, **self._options(variant)})

    def _options(self, variant: AttentionVariant) -> dict[str, Any]:
        return {
            "window_left": -1 if variant.window is None else variant.window - 1,
            "logits_soft_cap": variant.softcap,
            "sm_scale": 1.0,
            "q_data_type": self._state.dtype,
            "kv_data_type": self._state.held,
        }
