"""Attention by FlashInfer's kernels over pages of one slot, on CUDA devices. Knows no model and no ranks.

A step of single tokens goes through the decode kernels; a step with prompts goes through the prefill kernels as a
whole, where a single token is a prompt of one. Scores are scaled when a layer runs, so that all layers of a variant
share a plan. Checked with FlashInfer 0.7.2.

Dimensions: T tokens of the step, R rows, S keys of all rows together, H and K query and key/value heads of the rank.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from text_generation_server.attention.base import AttentionShape, AttentionVariant, LayerAttention, RowLayout
from text_generation_server.cache.paged import PagedCache

HEAD_DIMS = (64, 128, 256)
WORKSPACE_BYTES = 256 << 20
"""What FlashInfer's documentation advises; kernels put partial results of long rows there."""

CUDA_CORE_GROUPS = (1, 2, 4, 8)
"""Query heads a key/value head that the decode kernels on CUDA cores are compiled for."""

TENSOR_CORE_KEYS = 8192
"""Keys of a step from which tensor cores decode faster where heads share keys; with fewer they take up to 4 times as
long (H100, bfloat16: level at 32 rows of 512 keys, 14 % faster at 128 rows of 2048)."""


class FlashInferPlan:
    """One step: which slots are written and read, and a planned kernel for each variant."""

    def __init__(self, kernels: Sequence[Any], pages: "Pages") -> None:
        self._kernels = kernels
        self._written = pages.written

    def run(self, q: Tensor, kv: Tensor, layer: LayerAttention, cache: PagedCache) -> Tensor:
        """See `AttentionPlan`."""
        tokens, heads, head_dim = q.shape
        pool = cache.layer(layer.layer)
        pool.index_copy_(0, self._written, kv.view(tokens, 2, -1, head_dim))
        out: Tensor = self._kernels[layer.variant].run(q, pool.unsqueeze(2), q_scale=layer.scale)
        return out.view(tokens, heads * head_dim)


class Pages:
    """Where the keys of a step's rows are.

    read_ends, query_ends: [R + 1] int32 on the host, where each row's keys and queries end. slots: [S] int32. written:
    [T] int64, the slot of each computed token.
    """

    def __init__(self, layout: RowLayout) -> None:
        table = layout.slot_table
        device = table.device
        self.read_ends = torch.tensor([0, *accumulate(layout.kv_lens)], dtype=torch.int32)
        self.query_ends = torch.tensor([0, *accumulate(layout.query_lens)], dtype=torch.int32)
        self.last_page_lens = torch.ones(len(layout.rows), dtype=torch.int32)
        rows = torch.tensor(layout.rows, device=device)
        self.slots = _of_rows(table, rows, layout.kv_lens, [0] * len(layout.rows)).to(torch.int32)
        firsts = [keys - queries for keys, queries in zip(layout.kv_lens, layout.query_lens, strict=True)]
        self.written = _of_rows(table, rows, layout.query_lens, firsts)


def _of_rows(table: Tensor, rows: Tensor, counts: Sequence[int], firsts: Sequence[int]) -> Tensor:
    """Slots of `counts` positions of each row from its first on, row after row."""
    total, device = sum(counts), table.device
    # What each row's running number must become its position: the first one's, less where the row starts.
    shifts = [first - start for first, start in zip(firsts, accumulate(counts, initial=0), strict=False)]
    lens = torch.tensor(counts, device=device)
    shift = torch.tensor(shifts, device=device).repeat_interleave(lens, output_size=total)
    positions = torch.arange(total, device=device) + shift
    return table[rows.repeat_interleave(lens, output_size=total), positions]


class FlashInferAttention:
    """Makes plans for models of one shape."""

    name = "flashinfer"
    slot_major = True

    def __init__(self, shape: AttentionShape) -> None:
        import flashinfer  # takes seconds, and is not there on every machine

        state = shape.state
        self._variants, self._heads, self._state = shape.variants, shape.heads, state
        workspace = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=state.device)
        self._prefill = [flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD") for _ in shape.variants]
        self._decode = {
            tensor_cores: [
                flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace, "NHD", use_tensor_cores=tensor_cores)
                for _ in shape.variants
            ]
            for tensor_cores in (False, True)
        }

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
        if state.head_dim not in HEAD_DIMS:
            return f"heads have {state.head_dim} numbers, not {', '.join(map(str, HEAD_DIMS))}"
        if any(variant.alibi is not None for variant in shape.variants):
            return "its linear biases know neither other slopes nor ranks"
        return None

    def plan(self, layout: RowLayout) -> FlashInferPlan:
        """Prepare one step."""
        pages = Pages(layout)
        if max(layout.query_lens) > 1:
            kernels = self._prefill
            for kernel, variant in zip(kernels, self._variants, strict=True):
                self._plan_prefill(kernel, variant, pages)
        else:
            kernels = self._decode[self._wants_tensor_cores(sum(layout.kv_lens))]
            for kernel, variant in zip(kernels, self._variants, strict=True):
                self._plan_decode(kernel, variant, pages)
        return FlashInferPlan(kernels, pages)

    def _wants_tensor_cores(self, keys: int) -> bool:
        group = self._heads // self._state.kv_heads
        return group not in CUDA_CORE_GROUPS or (group > 1 and keys >= TENSOR_CORE_KEYS)

    def _plan_prefill(self, kernel: Any, variant: AttentionVariant, pages: Pages) -> None:
        kernel.plan(
            pages.query_ends,
            pages.read_ends,
            pages.slots,
            pages.last_page_lens,
            *(self._heads, self._state.kv_heads, self._state.head_dim, 1),
            causal=True,
            **self._options(variant),
        )

    def _plan_decode(self, kernel: Any, variant: AttentionVariant, pages: Pages) -> None:
        kernel.plan(
            pages.read_ends,
            pages.slots,
            pages.last_page_lens,
            *(self._heads, self._state.kv_heads, self._state.head_dim, 1),
            **self._options(variant),
        )

    def _options(self, variant: AttentionVariant) -> dict[str, Any]:
        return {
            "window_left": -1 if variant.window is None else variant.window - 1,
            "logits_soft_cap": variant.softcap,
            "sm_scale": 1.0,
            "q_data_type": self._state.dtype,
            "kv_data_type": self._state.dtype,
        }
