"""Writes quantised checkpoints from the formats' definitions, and what transformers answers with the weights they mean.

Independent of the server's code: numbers are packed bit by bit with numpy, and dequantised in float64.
"""

import itertools
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

Written = tuple[dict[str, Tensor], Tensor]
"""The tensors of a linear by the last part of their names, and the weights [out, in] float32 that they stand for."""

Writer = Callable[[Tensor, np.random.Generator], Written]


def is_linear(name: str, tensor: Tensor) -> bool:
    """Whether a tensor is of a linear of a layer that formats quantise."""
    return tensor.dim() == 2 and (".layers." in name or ".h." in name) and name.endswith(".weight")


@dataclass(frozen=True)
class QuantisedModel:
    """config: its quantisation's. file: where that is written, empty for config.json's quantization_config.

    chosen: which tensors are quantised.
    """

    write: Writer
    config: Mapping[str, Any]
    file: str = ""
    chosen: Callable[[str, Tensor], bool] = is_linear


def bit_stream(numbers: NDArray[Any], bits: int) -> Tensor:
    """Numbers [..., n] to words [..., n · bits / 32] int32: bit after bit, the least significant first."""
    bit = (numbers.astype(np.uint8)[..., None] >> np.arange(bits, dtype=np.uint8)) & 1
    stream = bit.reshape(*numbers.shape[:-1], -1)
    assert stream.shape[-1] % 32 == 0
    return torch.from_numpy(np.packbits(stream, axis=-1, bitorder="little").view("<i4").copy())


def grouped(weight: Tensor, groups: NDArray[Any], bits: int, symmetric: bool) -> tuple[NDArray[Any], ...]:
    """Codes [out, in], and scales (float16) and zeros [out, groups], by the range of each group."""
    values = weight.numpy()
    count = groups.max() + 1
    top, scales, zeros = (
        2**bits - 1,
        np.empty((len(values), count), np.float16),
        np.empty((len(values), count), np.int64),
    )
    for group in range(count):
        part = values[:, groups == group]
        low, high = np.minimum(part.min(1), 0), np.maximum(part.max(1), 0)
        if symmetric:
            high = np.maximum(-low, high)
            low = -high
        scales[:, group] = (high - low) / top + 1e-4
        zeros[:, group] = (top + 1) // 2 if symmetric else np.clip(np.round(-low / scales[:, group]), 0, top)
    codes = np.clip(np.round(values / scales[:, groups].astype(np.float32)) + zeros[:, groups], 0, top).astype(np.int64)
    return codes, scales, zeros


def meant(codes: NDArray[Any], scales: NDArray[Any], zeros: NDArray[Any], groups: NDArray[Any]) -> Tensor:
    """(code - zero) · scale, [out, in]."""
    return torch.from_numpy((codes - zeros[:, groups]) * scales.astype(np.float64)[:, groups]).float()


def gptq(
    bits: int = 4,
    size: int = 32,
    *,
    act_order: bool = False,
    symmetric: bool = False,
    version: int = 1,
    bare: bool = False,
) -> Writer:
    """A writer of GPTQ's tensors. bare: without zeros, which are the middle, and without the inputs' groups."""

    def write(weight: Tensor, random: np.random.Generator) -> Written:
        inputs = weight.shape[1]
        groups = np.arange(inputs) // (inputs if size < 0 else size)
        if act_order:
            groups = random.permutation(groups)
        codes, scales, zeros = grouped(weight, groups, bits, symmetric)
        stored = (zeros - (version == 1)) % 2**bits
        tensors = {
            "qweight": bit_stream(codes, bits).T,
            "qzeros": bit_stream(stored.T, bits),
            "scales": torch.from_numpy(scales.T),
            "g_idx": torch.from_numpy(groups.astype(np.int32)),
        }
        if bare:
            del tensors["qzeros"], tensors["g_idx"]
        return tensors, meant(codes, scales, zeros, groups)

    return write


def awq(size: int = 32) -> Writer:
    """A writer of AutoAWQ's tensors, version gemm."""

    def interleaved(numbers: NDArray[Any]) -> Tensor:
        return bit_stream(
            numbers.reshape(len(numbers), -1, 8)[:, :, [0, 2, 4, 6, 1, 3, 5, 7]].reshape(numbers.shape), 4
        )

    def write(weight: Tensor, random: np.random.Generator) -> Written:
        groups = np.arange(weight.shape[1]) // size
        codes, scales, zeros = grouped(weight, groups, 4, symmetric=False)
        tensors = {
            "qweight": interleaved(codes.T),
            "qzeros": interleaved(zeros.T),
            "scales": torch.from_numpy(scales.T),
        }
        return tensors, meant(codes, scales, zeros, groups)

    return write


def packed(bits: int = 4, size: int = 32, *, symmetric: bool = True, act_order: bool = False) -> Writer:
    """A writer of compressed-tensors' `pack-quantized`; size -1: a scale an output."""

    def write(weight: Tensor, random: np.random.Generator) -> Written:
        inputs = weight.shape[1]
        groups = np.arange(inputs) // (inputs if size < 0 else size)
        if act_order:
            groups = random.permutation(groups)
        codes, scales, zeros = grouped(weight, groups, bits, symmetric)
        tensors = {
            "weight_packed": bit_stream(codes, bits),
            "weight_scale": torch.from_numpy(scales),
            "weight_shape": torch.tensor(weight.shape),
        }
        if act_order:
            tensors["weight_g_idx"] = torch.from_numpy(groups.astype(np.int32))
        if not symmetric:
            tensors["weight_zero_point"] = bit_stream(zeros.T, bits).T
        return tensors, meant(codes, scales, zeros, groups)

    return write


def in_bytes(
    dtype: torch.dtype, block: tuple[int, int], last: str = "weight_scale", shape: Sequence[int] | None = None
) -> Writer:
    """A writer of a byte a weight, with a scale for each block; 0 outputs or inputs: all. shape: of the scales."""
    most = 127 if dtype is torch.int8 else 448

    def write(weight: Tensor, random: np.random.Generator) -> Written:
        sizes = [size or whole for size, whole in zip(block, weight.shape, strict=True)]
        rows, columns = (torch.arange(whole) // size for size, whole in zip(sizes, weight.shape, strict=True))
        scales = torch.zeros(int(rows.max()) + 1, int(columns.max()) + 1)
        for row, column in itertools.product(range(scales.shape[0]), range(scales.shape[1])):
            scales[row, column] = weight[rows == row][:, columns == column].abs().max() / most
        spread = scales[rows][:, columns]
        values = (weight / spread).round() if dtype is torch.int8 else weight / spread
        codes = values.clamp(-most, most).to(dtype)
        return {"weight": codes, last: scales if shape is None else scales.reshape(shape)}, codes.float() * spread

    return write


def nearest(values: Sequence[float], size: int = 64) -> Writer:
    """Weights as the nearest of these times the largest of a block; the plain ones are written."""

    def write(weight: Tensor, random: np.random.Generator) -> Written:
        found, table = torch.empty_like(weight), torch.tensor(values)
        for start in range(0, weight.shape[1], size):
            part = weight[:, start : start + size]
            scale = part.abs().amax(1, keepdim=True)
            places = (part[..., None] / scale[..., None] - table).abs().argmin(-1)
            found[:, start : start + size] = table[places] * scale
        return {"weight": weight}, found

    return write


def of_table(
    name: str, values: Sequence[float], *, nested: bool = False, storage: torch.dtype = torch.uint8, size: int = 64
) -> Writer:
    """A writer of bitsandbytes' 4 bits: blocks of numbers, whatever rows they are in. nested: scales are bytes."""

    def write(weight: Tensor, random: np.random.Generator) -> Written:
        numbers = weight.numpy().reshape(-1)
        blocks = np.arange(len(numbers)) // size
        scales = np.array([np.abs(numbers[blocks == block]).max() for block in range(blocks[-1] + 1)], np.float32)
        state = {"quant_type": name, "blocksize": size, "dtype": "bfloat16", "shape": list(weight.shape)}
        tensors = {"weight.quant_map": torch.tensor(values), "weight.absmax": torch.from_numpy(scales)}
        if nested:
            tensors, scales = _nested(tensors, scales, state)
        codes = np.abs(numbers[:, None] / scales[blocks, None] - np.array(values)).argmin(1)
        packed = torch.from_numpy((codes[::2] << 4 | codes[1::2]).astype(np.uint8))
        tensors["weight"] = packed.view(storage).reshape(-1, 1)
        said = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
        tensors[f"weight.quant_state.bitsandbytes__{name}"] = said
        return tensors, torch.from_numpy(np.array(values)[codes] * scales[blocks]).float().view(weight.shape)

    return write


def _nested(
    tensors: dict[str, Tensor], scales: NDArray[Any], state: dict[str, Any], size: int = 256
) -> tuple[dict[str, Tensor], NDArray[Any]]:
    """Scales less their mean as places in a table of 256, times the largest of a block of them."""
    offset, places = float(scales.mean()), np.arange(len(scales)) // size
    table = np.sort(np.tanh(np.linspace(-3, 3, 256))).astype(np.float32)
    largest = np.array([np.abs(scales - offset)[places == at].max() for at in range(places[-1] + 1)], np.float32) + 1e-6
    codes = np.abs((scales - offset)[:, None] / largest[places, None] - table).argmin(1)
    state |= {"nested_blocksize": size, "nested_dtype": "float32", "nested_offset": offset}
    tensors |= {
        "weight.absmax": torch.from_numpy(codes.astype(np.uint8)),
        "weight.nested_absmax": torch.from_numpy(largest),
        "weight.nested_quant_map": torch.from_numpy(table),
    }
    return tensors, table[codes] * largest[places] + offset


def int8_rows() -> Writer:
    """A writer of bitsandbytes' 8 bits."""

    def write(weight: Tensor, random: np.random.Generator) -> Written:
        largest = weight.abs().amax(1)
        codes = (weight / largest[:, None] * 127).round().to(torch.int8)
        tensors = {"weight": codes, "SCB": largest, "weight_format": torch.tensor(0, dtype=torch.uint8)}
        return tensors, codes.float() * (largest[:, None] / 127)

    return write


def plainly(writer: Writer) -> Writer:
    """The same, but the plain weights are written."""
    return lambda weight, random: ({"weight": weight}, writer(weight, random)[1])


def quantise(
    plain: Path,
    directory: Path,
    model: QuantisedModel,
    kept: Callable[[str], bool] = lambda name: False,
    heads: bool = False,
) -> Any:
    """A copy of a saved model with quantised linears, and transformers' model with the weights that they stand for.

    heads: the output head and routers are quantised too.
    """
    shutil.copytree(plain, directory)
    file, random = directory / "model.safetensors", np.random.default_rng(7)
    meant = load_file(file)
    tensors = dict(meant)
    for name in [name for name in tensors if _quantised(model, name, tensors[name], heads) and not kept(name)]:
        written, meant[name] = model.write(tensors.pop(name).float(), random)
        stem = name.removesuffix("weight")
        tensors |= {stem + last: tensor.contiguous() for last, tensor in written.items()}
    save_file(meant, file, {"format": "pt"})
    means = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager", dtype=torch.float32).eval()
    save_file(tensors, file)
    if not model.config:
        return means
    if model.file:
        (directory / model.file).write_text(json.dumps(model.config))
    else:
        config = json.loads((directory / "config.json").read_text())
        (directory / "config.json").write_text(json.dumps({**config, "quantization_config": model.config}))
    return means


def _quantised(model: QuantisedModel, name: str, tensor: Tensor, heads: bool) -> bool:
    if name == "lm_head.weight":
        return heads
    return model.chosen(name, tensor) and (heads or not name.endswith("gate.weight"))
