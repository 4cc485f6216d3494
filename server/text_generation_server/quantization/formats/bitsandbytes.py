"""Checkpoints that bitsandbytes quantised before they were saved: 4 bits that stand for 16 numbers, or int8.

Of a linear [out, in] with 4 bits (arXiv 2305.14314): weight, all numbers one after the other, two a byte, the first in
the upper half; weight.absmax, a scale for each block of them, whatever row they are in; weight.quant_map, what codes
stand for; weight.quant_state.bitsandbytes__nf4 or …fp4, JSON of sizes. Scales may be bytes themselves, places in
weight.nested_quant_map, times weight.nested_absmax of a block of scales, plus an offset. With 8 bits (arXiv
2208.07339): weight int8, SCB, 127 times the scale of each output. Linears without those are plain.
"""

import json
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from text_generation_server.config.configdict import ConfigDict
from text_generation_server.errors import UnsupportedModel
from text_generation_server.quantization.bits import as_range, behind
from text_generation_server.quantization.coded import Coded
from text_generation_server.quantization.dense import DenseScheme
from text_generation_server.quantization.pieces import Stored
from text_generation_server.weights.checkpoint import Checkpoint
from text_generation_server.weights.layout import Rows

TABLES = ("fp4", "nf4")
STORAGE = {
    "uint8": torch.uint8,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}
"""Types that bytes of 4-bit numbers pass for."""

BLOCK, NESTED_BLOCK = 64, 256
LARGEST_INT8 = 127.0
BY_ROW = 0
"""The one order of int8 weights that is read."""


@dataclass(frozen=True, slots=True)
class Bitsandbytes:
    """Satisfies `Format`. table: the kind of 4 bits, None for int8. storage: of their bytes."""

    table: str | None
    storage: torch.dtype
    dense: DenseScheme
    heads: bool = True

    @classmethod
    def of(cls, config: ConfigDict, dense: DenseScheme) -> "Bitsandbytes":
        """By a quantization_config. Raises UnsupportedModel."""
        table, storage = _table(config), config.text("bnb_4bit_quant_storage", default="uint8")
        if storage not in STORAGE:
            raise config.refusal("bnb_4bit_quant_storage", storage, f"one of {', '.join(STORAGE)}")
        return cls(table, STORAGE[storage], dense)

    def find(self, checkpoint: Checkpoint, name: str, shape: tuple[int, int], transposed: bool) -> Stored | None:
        """See `Format`."""
        sign = f"{name}.SCB" if self.table is None else f"{name}.weight.absmax"
        if checkpoint.has(f"{name}.weight") and not checkpoint.has(sign):
            return None
        if self.table is None:
            return Int8Linear(checkpoint, name, shape, self.dense)
        return TableLinear(checkpoint, f"{name}.weight", shape, self)


def spelling(config: ConfigDict) -> str:
    """What --quantize calls such a checkpoint. Raises UnsupportedModel."""
    table = _table(config)
    return "bitsandbytes" if table is None else f"bitsandbytes-{table}"


def _table(config: ConfigDict) -> str | None:
    four, eight = (config.flag(f"load_in_{bits}bit", default=False) for bits in (4, 8))
    if four is eight:
        raise config.refusal("load_in_4bit", four, f"either that or load_in_8bit, which is {eight} too")
    table = config.text("bnb_4bit_quant_type", default="fp4")
    if table not in TABLES:
        raise config.refusal("bnb_4bit_quant_type", table, f"one of {', '.join(TABLES)}")
    return table if four else None


@dataclass(frozen=True, slots=True)
class TableLinear:
    """4 bits. Satisfies `Stored`. name: of the tensor."""

    checkpoint: Checkpoint
    name: str
    shape: tuple[int, int]
    form: Bitsandbytes

    def read(self, rows: Rows, columns: Rows) -> Coded:
        """See `Stored`."""
        (outputs, inputs), dense = self.shape, self.form.dense
        if inputs % 2:
            raise UnsupportedModel(f"{self.name} has {inputs} inputs, two of which are a byte: expected an even number")
        state = self._state()
        block = state.integer("blocksize", default=BLOCK)
        size = math.gcd(inputs, block)
        starts = torch.arange(outputs)[rows, None] * inputs + torch.arange(0, inputs, size)
        return Coded(
            codes=self._codes(rows, columns).to(dense.device),
            scales=self._scales(-(-outputs * inputs // block), state)[starts // block].to(dense.device),
            groups=(torch.arange(inputs) // size)[columns],
            dense=dense,
            bits=4,
            table=self.checkpoint.view(f"{self.name}.quant_map", (16,)).to(dense.device),
        )

    def _codes(self, rows: Rows, columns: Rows) -> Tensor:
        (outputs, inputs), storage = self.shape, self.form.storage
        words = self.checkpoint.view(self.name, (outputs * inputs // 2 // storage.itemsize, 1), storage)
        first, last = as_range(columns, inputs)
        first, last = first // 2, -(-last // 2)
        stored = words.view(torch.uint8).view(outputs, inputs // 2)[rows][:, first:last]
        return torch.stack((stored >> 4, stored & 15), -1).flatten(1)[:, behind(columns, 2 * first, 2 * (last - first))]

    def _scales(self, blocks: int, state: ConfigDict) -> Tensor:
        """[blocks] float32"""
        nested = f"{self.name}.nested_absmax"
        if not self.checkpoint.has(nested):
            return self.checkpoint.view(f"{self.name}.absmax", (blocks,))
        size = state.integer("nested_blocksize", default=NESTED_BLOCK)
        places = self.checkpoint.view(f"{self.name}.absmax", (blocks,), torch.uint8).long()
        scales = self.checkpoint.view(nested, (-(-blocks // size),))[torch.arange(blocks) // size]
        table = self.checkpoint.view(f"{self.name}.nested_quant_map", (256,))
        return table[places] * scales + state.number("nested_offset", default=0.0)

    def _state(self) -> ConfigDict:
        """What is said of the tensor, empty where nothing is."""
        name = f"{self.name}.quant_state.bitsandbytes__{self.form.table}"
        text = self.checkpoint.text(name) if self.checkpoint.has(name) else "{}"
        try:
            said = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UnsupportedModel(f"{name} is no JSON ({error}): download or convert the model again") from error
        if not isinstance(said, dict):
            raise UnsupportedModel(f"{name} is {said!r}, expected an object")
        return ConfigDict(said, name)


@dataclass(frozen=True, slots=True)
class Int8Linear:
    """A byte a weight. Satisfies `Stored`."""

    checkpoint: Checkpoint
    name: str
    shape: tuple[int, int]
    dense: DenseScheme

    def read(self, rows: Rows, columns: Rows) -> Coded:
        """See `Stored`."""
        order = f"{self.name}.weight_format"
        if self.checkpoint.has(order) and (found := int(self.checkpoint.view(order, (), torch.uint8))) != BY_ROW:
            raise UnsupportedModel(f"{order} is {found}, which is not supported; expected {BY_ROW}, row by row")
        codes = self.checkpoint.view(f"{self.name}.weight", self.shape, torch.int8)[rows][:, columns]
        scales = self.checkpoint.view(f"{self.name}.SCB", (self.shape[0],))[rows, None] / LARGEST_INT8
        groups = torch.zeros(self.shape[1], dtype=torch.int64)[columns]
        return Coded(codes.to(self.dense.device), scales.to(self.dense.device), groups, self.dense, bits=8)
