"""GPTQ (arXiv 2210.17323), as auto-gptq, gptqmodel, optimum and text-generation-inference write it.

Of a linear [out, in] with words of 32 bits: qweight [in · bits / 32, out] packed along inputs, qzeros
[groups, out · bits / 32] packed along outputs, scales [groups, out], g_idx [in], the group of each input. Zeros are one
more than stored, modulo 2^bits, unless the format's version is 2. Weights are (q - zero) · scale.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from text_generation_server.config.configdict import ConfigDict
from text_generation_server.quantization.bits import PackedNumbers
from text_generation_server.quantization.coded import Coded
from text_generation_server.quantization.dense import DenseScheme
from text_generation_server.weights.checkpoint import Checkpoint
from text_generation_server.weights.layout import Rows

BITS = (2, 3, 4, 8)
ADDED = {"gptq": 1, "gptq_v2": 0}
"""What is added to stored zeros, by `checkpoint_format`."""


@dataclass(frozen=True, slots=True)
class Gptq:
    """Satisfies `Format`. size: inputs of a group, None for all. added: to stored zeros."""

    bits: int
    size: int | None
    added: int
    heads: bool
    dense: DenseScheme

    @classmethod
    def of(cls, config: ConfigDict, dense: DenseScheme) -> "Gptq":
        """By a quantization_config or quantize_config.json. Raises UnsupportedModel."""
        bits, size = config.integer("bits"), config.integer("group_size", default=-1, at_least=-1)
        if bits not in BITS:
            raise config.refusal("bits", bits, f"one of {', '.join(map(str, BITS))}")
        if size == 0:
            raise config.refusal("group_size", size, "-1 for all inputs, or how many share a scale")
        written = config.text("checkpoint_format", "format", default="gptq")
        if written not in ADDED:
            raise config.refusal("checkpoint_format", written, f"one of {', '.join(ADDED)}")
        if config.get("dynamic"):
            raise config.refusal("dynamic", config.get("dynamic"), "the same bits and groups for all linears")
        return cls(bits, None if size < 0 else size, ADDED[written], config.flag("lm_head", default=False), dense)

    def find(self, checkpoint: Checkpoint, name: str, shape: tuple[int, int], transposed: bool) -> "GptqLinear | None":
        """See `Format`."""
        if checkpoint.has(f"{name}.weight"):
            return None
        checkpoint.leave_zeros(f"{name}.bias")  # some writers give every linear one
        return GptqLinear(self, checkpoint, name, shape)


@dataclass(frozen=True, slots=True)
class GptqLinear:
    """Satisfies `Stored`."""

    form: Gptq
    checkpoint: Checkpoint
    name: str
    shape: tuple[int, int]

    def read(self, rows: Rows, columns: Rows) -> Coded:
        """See `Stored`."""
        form, (outputs, inputs) = self.form, self.shape
        count = -(-inputs // (form.size or inputs))
        words = self.checkpoint.view(f"{self.name}.qweight", (inputs * form.bits // 32, outputs), torch.int32)
        numbers = PackedNumbers(words, form.bits, 0, form.dense.device)
        scales = self.checkpoint.view(f"{self.name}.scales", (count, outputs))[:, rows].T
        zero = 1 << form.bits - 1
        return Coded(
            codes=numbers.read(columns, rows).T,
            scales=scales.to(form.dense.device),
            groups=self._groups(count)[columns],
            dense=form.dense,
            bits=max(4, form.bits),
            zeros=self._zeros(count, rows),
            zero=zero,
        ).simplified()

    def _zeros(self, count: int, rows: Rows) -> Tensor | None:
        if not self.checkpoint.has(f"{self.name}.qzeros"):
            return None
        form = self.form
        words = self.checkpoint.view(f"{self.name}.qzeros", (count, self.shape[0] * form.bits // 32), torch.int32)
        stored = PackedNumbers(words, form.bits, 1, form.dense.device).read(slice(0, count), rows)
        return (stored + form.added & (1 << form.bits) - 1).T

    def _groups(self, count: int) -> Tensor:
        """[in]; files without order have zeros, or nothing."""
        inputs = self.shape[1]
        usual = torch.arange(inputs) // (self.form.size or inputs)
        if not self.checkpoint.has(f"{self.name}.g_idx"):
            return usual
        groups = self.checkpoint.view(f"{self.name}.g_idx", (inputs,), torch.int32).long()
        return groups if count == 1 or groups.any() else usual
