"""compressed-tensors, as llm-compressor writes it: integers packed in words, or a byte a weight.

`pack-quantized`, of a linear [out, in]: weight_packed [out, in · bits / 32] along inputs, of numbers that are half of
their range more than they say; weight_scale [out, groups]; weight_zero_point [out · bits / 32, groups] along outputs,
where ranges are not symmetric; weight_g_idx [in], the group of each input, where it is not by order. The others:
weight int8 or float8, weight_scale for all, an output, or a block; or, of 4-bit floats (`quantization/fp4.py`),
weight_packed uint8 [out, in / 2], with weight_scale [out, in / 32] of exponents (`mxfp4-`), or [out, in / 16] in e4m3
and weight_global_scale, which scales are divided by (`nvfp4-`). Which linears: by `targets` and `ignore`, names,
classes, or `re:` with an expression.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from text_generation_server.config.configdict import ConfigDict
from text_generation_server.config.quantised import says_narrow_keys
from text_generation_server.quantization.bits import PackedNumbers
from text_generation_server.quantization.bytes import ByteLinear
from text_generation_server.quantization.coded import Coded
from text_generation_server.quantization.dense import DenseScheme
from text_generation_server.quantization.fp4 import MX_SIZE, NV_SIZE, Fp4Linear, mx_linear, number, nv_linear
from text_generation_server.quantization.pieces import Stored
from text_generation_server.weights.checkpoint import Checkpoint
from text_generation_server.weights.layout import Rows

BYTES = {("float", 8): torch.float8_e4m3fn, ("int", 8): torch.int8}
"""By type and bits, what formats that are not packed hold."""

GROUPED, STRATEGIES = ("group", "tensor_group"), ("tensor", "channel", "block")
NO_SIZE = (*((strategy, None, None) for strategy in GROUPED), ("block", None, None))
LINEAR = "Linear"
"""The class of all linears, in lists of targets."""

EXPRESSION = "re:"


@dataclass(frozen=True, slots=True)
class Layout:
    """How a linear's weights are stored. kinds: types with their bits. size: of groups, None for any.

    read: from a linear's name and shape.
    """

    kinds: Collection[tuple[str, int]]
    read: Callable[[Checkpoint, str, tuple[int, int], "Group", DenseScheme], Stored]
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """The linears of these `targets`. size: inputs of a group, None for all; block: see `ByteLinear`."""

    targets: tuple[str, ...]
    layout: Layout
    kind: str
    bits: int
    size: int | None
    block: tuple[int, ...] | None
    symmetric: bool
    rounds: bool

    @classmethod
    def of(cls, config: ConfigDict, form: str) -> "Group":
        """By an item of `config_groups`. Raises UnsupportedModel."""
        weights = config.section("weights")
        form = config.text("format", default=form)
        kind, bits = weights.text("type", default="int"), weights.integer("num_bits")
        layout = LAYOUTS.get(form)
        if layout is None:
            raise config.refusal("format", form, f"one of {', '.join(LAYOUTS)}")
        if (kind, bits) not in layout.kinds:
            known = " or ".join(f"{bits} bits of {kind}" for kind, bits in layout.kinds)
            raise weights.refusal("num_bits", bits, f"{known}; this is {kind} in {form}")
        strategy = weights.text("strategy", default="tensor")
        size = weights.optional_integer("group_size") if strategy in GROUPED else None
        block = weights.sizes("block_structure", 2) if strategy == "block" else None
        if strategy not in (*STRATEGIES, *GROUPED) or (strategy, size, block) in NO_SIZE:
            raise weights.refusal("strategy", strategy, "tensor, channel, or group or block with a size")
        if layout.size not in (None, size):
            raise weights.refusal("group_size", size, f"{layout.size} in {form}")
        inputs = config.section("input_activations")
        return cls(
            targets=_patterns(config, "targets", (LINEAR,)),
            layout=layout,
            kind=kind,
            bits=bits,
            size=size,
            block=block,
            symmetric=weights.flag("symmetric", default=True),
            rounds=inputs.get("type") == "float" and inputs.get("num_bits") == 8,
        )


@dataclass(frozen=True, slots=True)
class CompressedTensors:
    """Satisfies `Format`."""

    groups: tuple[Group, ...]
    ignored: tuple[str, ...]
    dense: DenseScheme
    heads: bool = True

    @classmethod
    def of(cls, config: ConfigDict, dense: DenseScheme) -> "CompressedTensors":
        """By a quantization_config or compression_config. Raises UnsupportedModel."""
        for key in ("sparsity_config", "transform_config"):
            if config.get(key):
                raise config.refusal(key, config.get(key), "a model without it")
        groups, form = config.section("config_groups"), config.text("format", default="dense")
        found = tuple(Group.of(groups.section(key), form) for key in groups.sections())
        if not found and not says_narrow_keys(config):
            raise config.refusal("config_groups", config.get("config_groups"), "a group of linears")
        return cls(found, _patterns(config, "ignore", ()), dense)

    def find(self, checkpoint: Checkpoint, name: str, shape: tuple[int, int], transposed: bool) -> Stored | None:
        """See `Format`."""
        if _among(name, self.ignored, ()):
            return None
        group = next((group for group in self.groups if _among(name, group.targets, (LINEAR,))), None)
        if group is None:
            return None
        return group.layout.read(checkpoint, name, shape, group, self.dense)


def _in_bytes(
    checkpoint: Checkpoint, name: str, shape: tuple[int, int], group: Group, dense: DenseScheme
) -> ByteLinear:
    for last in ("input_scale", "input_zero_point", "weight_zero_point"):
        checkpoint.leave(f"{name}.{last}")
    dtype = BYTES[group.kind, group.bits]
    return ByteLinear(checkpoint, name, shape, dtype, f"{name}.weight_scale", group.block, group.rounds, dense)


def _mxfp4(checkpoint: Checkpoint, name: str, shape: tuple[int, int], group: Group, dense: DenseScheme) -> Fp4Linear:
    return mx_linear(checkpoint, f"{name}.weight_packed", f"{name}.weight_scale", shape, dense)


def _nvfp4(checkpoint: Checkpoint, name: str, shape: tuple[int, int], group: Group, dense: DenseScheme) -> Fp4Linear:
    checkpoint.leave(f"{name}.input_global_scale")
    factor = 1.0 / number(checkpoint, f"{name}.weight_global_scale")
    return nv_linear(checkpoint, f"{name}.weight_packed", f"{name}.weight_scale", shape, dense, factor)


@dataclass(frozen=True, slots=True)
class WordLinear:
    """Satisfies `Stored`."""

    checkpoint: Checkpoint
    name: str
    shape: tuple[int, int]
    group: Group
    dense: DenseScheme

    def read(self, rows: Rows, columns: Rows) -> Coded:
        """See `Stored`."""
        self.checkpoint.leave(f"{self.name}.weight_shape")
        (outputs, inputs), bits = self.shape, self.group.bits
        size = self.group.size or inputs
        count = -(-inputs // size)
        words = self.checkpoint.view(f"{self.name}.weight_packed", (outputs, -(-inputs * bits // 32)), torch.int32)
        scales = self.checkpoint.view(f"{self.name}.weight_scale", (outputs, count), others=((1,), (), (outputs,)))
        groups = torch.arange(inputs) // size
        if self.checkpoint.has(f"{self.name}.weight_g_idx"):
            groups = self.checkpoint.view(f"{self.name}.weight_g_idx", (inputs,)).long()
        return Coded(
            codes=PackedNumbers(words, bits, 1, self.dense.device).read(rows, columns),
            scales=scales.reshape(-1, count).expand(outputs, count)[rows].to(self.dense.device),
            groups=groups[columns],
            dense=self.dense,
            bits=bits,
            zeros=None if self.group.symmetric else self._zeros(rows, count),
            zero=1 << bits - 1,
        ).simplified()

    def _zeros(self, rows: Rows, count: int) -> Tensor:
        shape = -(-self.shape[0] * self.group.bits // 32), count
        words = self.checkpoint.view(f"{self.name}.weight_zero_point", shape, torch.int32)
        return PackedNumbers(words, self.group.bits, 0, self.dense.device).read(rows, slice(0, count))


def _patterns(config: ConfigDict, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
    found = config.texts(key, default=default)
    for pattern in found:
        try:
            re.compile(pattern.removeprefix(EXPRESSION))
        except re.error as error:
            if pattern.startswith(EXPRESSION):
                raise config.refusal(key, pattern, f"an expression ({error})") from error
    return found


def _among(name: str, patterns: Sequence[str], classes: Sequence[str]) -> bool:
    return any(
        re.match(pattern.removeprefix(EXPRESSION), name) is not None
        if pattern.startswith(EXPRESSION)
        else pattern in (name, *classes)
        for pattern in patterns
    )


LAYOUTS: Mapping[str, Layout] = {
    "pack-quantized": Layout((("int", 4), ("int", 8)), WordLinear),
    **dict.fromkeys(("float-quantized", "int-quantized", "naive-quantized"), Layout(BYTES, _in_bytes)),
    "mxfp4-pack-quantized": Layout((("float", 4),), _mxfp4, MX_SIZE),
    "nvfp4-pack-quantized": Layout((("float", 4),), _nvfp4, NV_SIZE),
}
"""By `format`."""
