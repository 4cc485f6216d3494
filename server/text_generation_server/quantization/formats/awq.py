"""AWQ (arXiv 2306.00978), as AutoAWQ writes it.

Of a linear [out, in], in version `gemm`: qweight [in, out / 8] and qzeros [groups, out / 8], words of eight numbers in
the order 0 2 4 6 1 3 5 7 along outputs; scales [groups, out]. Weights are (q - zero) · scale.
"""

from dataclasses import dataclass

import torch

from text_generation_server.config.configdict import ConfigDict
from text_generation_server.quantization.bits import PackedNumbers
from text_generation_server.quantization.coded import Coded
from text_generation_server.quantization.dense import DenseScheme
from text_generation_server.weights.checkpoint import Checkpoint
from text_generation_server.weights.layout import Rows

BITS = 4
ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Which place of a word each of its numbers has."""

VERSION = "gemm"


@dataclass(frozen=True, slots=True)
class Awq:
    """Satisfies `Format`. size: inputs of a group, None for all."""

    size: int | None
    dense: DenseScheme
    heads: bool = False

    @classmethod
    def of(cls, config: ConfigDict, dense: DenseScheme) -> "Awq":
        """By a quantization_config or quant_config.json. Raises UnsupportedModel."""
        bits, size = config.integer("bits", "w_bit"), config.integer("group_size", "q_group_size", at_least=-1)
        if bits != BITS:
            raise config.refusal("bits", bits, str(BITS))
        if size == 0:
            raise config.refusal("group_size", size, "-1 for all inputs, or how many share a scale")
        version = config.text("version", default=VERSION)
        if version.lower() != VERSION:
            raise config.refusal("version", version, VERSION)
        return cls(None if size < 0 else size, dense)

    def find(self, checkpoint: Checkpoint, name: str, shape: tuple[int, int], transposed: bool) -> "AwqLinear | None":
        """See `Format`."""
        return None if checkpoint.has(f"{name}.weight") else AwqLinear(self, checkpoint, name, shape)


@dataclass(frozen=True, slots=True)
class AwqLinear:
    """Satisfies `Stored`."""

    form: Awq
    checkpoint: Checkpoint
    name: str
    shape: tuple[int, int]

    def read(self, rows: Rows, columns: Rows) -> Coded:
        """See `Stored`."""
        (outputs, inputs), device = self.shape, self.form.dense.device
        size = self.form.size or inputs
        count = -(-inputs // size)
        codes, zeros = (
            PackedNumbers(
                self.checkpoint.view(f"{self.name}.{last}", (n, outputs // 8), torch.int32), BITS, 1, device, ORDER
            )
            for last, n in (("qweight", inputs), ("qzeros", count))
        )
        scales = self.checkpoint.view(f"{self.name}.scales", (count, outputs))[:, rows].T
        return Coded(
            codes=codes.read(columns, rows).T,
            scales=scales.to(device),
            groups=(torch.arange(inputs) // size)[columns],
            dense=self.form.dense,
            bits=BITS,
            zeros=zeros.read(slice(0, count), rows).T,
            zero=1 << BITS - 1,
        ).simplified()
