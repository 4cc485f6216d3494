"""A GGUF file as a model directory: config, tokenizer, one safetensors file. Knows no cache and no layout of blocks.

The numbers are dequantized exactly as ggml does and then rounded once, to the type that holds most of the file:
float32 and float16 stay what they are, everything else becomes bfloat16. Or packed: linears keep their bytes, under a
name that ends in the type of their blocks, and whatever else there is is not rounded at all.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from gguf.constants import GGML_QUANT_SIZES
from numpy.typing import NDArray

from text_generation_server.errors import UnsupportedModel
from text_generation_server.tokenization.saving import save_tokenizer
from text_generation_server.weights.gguf.architecture import (
    ROPE_FACTORS,
    architecture_of,
    checkpoint_name,
    head_dim,
    model_config,
)
from text_generation_server.weights.gguf.blocks import BLOCKS
from text_generation_server.weights.gguf.container import (
    Container,
    Floats,
    TensorInfo,
    read_container,
    read_packed,
    read_rows,
)
from text_generation_server.weights.gguf.metadata import check_metadata
from text_generation_server.weights.gguf.special import end_ids, generation_config
from text_generation_server.weights.gguf.tokenizer import build_tokenizer, tokenizer_config
from text_generation_server.weights.stream import StoredType, StreamedTensor, write_safetensors

_CHUNK = 1 << 20
"""Numbers decoded at a time: 4 MiB of float32 fits the processor's cache, and bounds memory whatever the tensor."""


_Read = Callable[[BinaryIO, TensorInfo, int, int], NDArray[Any]]
"""A range of a tensor's rows, as numbers or as bytes."""

METHOD = "gguf"
"""What a packed directory's quantization_config says."""

_TABLE = "token_embd.weight"
"""The one matrix that is looked up in."""


def convert(source: Path, target: Path, report: Callable[[str], None] = lambda _: None, packed: bool = False) -> int:
    """Fill the existing, empty directory `target` from the GGUF file `source`; returns the bytes of weights written.

    report: is told what may surprise. packed: linears stay as they are.
    Raises UnsupportedModel, naming key and value, for anything in the file that would not be carried over.
    """
    gguf = read_container(source)
    architecture_of(gguf)
    check_metadata(gguf, report)
    if not end_ids(gguf):
        report(f"{source.name} names no token that ends a text: answers end where they are as long as was asked for")
    most, said = _most(gguf), {"quantization_config": {"quant_method": METHOD}} if packed else {}
    if packed and (others := _decoded(gguf)):
        report(f"{source.name} has matrices of types that cannot stay packed, and are made plain: {', '.join(others)}")
    with source.open("rb") as file:
        save_tokenizer(build_tokenizer(gguf), target / "tokenizer.json")
        _write_json(target / "tokenizer_config.json", tokenizer_config(gguf))
        config = model_config(gguf, _rope_factors(gguf, file), most.torch_name)
        _write_json(target / "config.json", config | said)
        _write_json(target / "generation_config.json", generation_config(gguf))
        tensors = _streamed(gguf, file, None if packed else most)
        return write_safetensors(target / "model.safetensors", tensors)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _most(gguf: Container) -> StoredType:
    """The type for all tensors."""
    sizes: Counter[str] = Counter()
    for tensor in gguf.tensors.values():
        sizes[tensor.kind.name] += tensor.num_rows * tensor.row_len
    most, _ = sizes.most_common(1)[0]
    return StoredType(most) if most in tuple(StoredType) else StoredType.BFLOAT16


def _decoded(gguf: Container) -> list[str]:
    """Types of blocks of linears that nothing here multiplies with."""
    blocks = (tensor for tensor in gguf.tensors.values() if GGML_QUANT_SIZES[tensor.kind][0] > 1)
    return sorted({tensor.kind.name for tensor in blocks if tensor.name != _TABLE} - BLOCKS.keys())


def _rope_factors(gguf: Container, file: BinaryIO) -> Floats | None:
    tensor = gguf.tensors.get(ROPE_FACTORS)
    return None if tensor is None else read_rows(file, tensor, 0, tensor.num_rows).reshape(-1)


def _streamed(gguf: Container, file: BinaryIO, dtype: StoredType | None) -> list[StreamedTensor]:
    """All tensors, as this type; None for as they are, if that can be."""
    names = {name: checkpoint_name(name) for name in gguf.tensors if name != ROPE_FACTORS}
    unknown = [name for name, found in names.items() if found is None]
    if unknown:
        kind = gguf.text("general.architecture")
        raise UnsupportedModel(f"{gguf.path}: {kind} has no place for the tensors {', '.join(unknown[:5])}")
    return [_stream(gguf, file, gguf.tensors[name], found, dtype) for name, found in names.items() if found is not None]


def _stream(gguf: Container, file: BinaryIO, tensor: TensorInfo, name: str, dtype: StoredType | None) -> StreamedTensor:
    kind, shape, read = tensor.kind.name, tensor.shape, cast(_Read, read_rows)
    if dtype is None and kind in BLOCKS and tensor.name != _TABLE:
        name, dtype, read = f"{name.removesuffix('.weight')}.{kind}", StoredType.BYTES, read_packed
        shape = tensor.num_rows, tensor.byte_range(0, 1)[1]
    stored = dtype or (StoredType(kind) if kind in tuple(StoredType) else StoredType.FLOAT32)
    rotary = ".attn_q." in tensor.name or ".attn_k." in tensor.name
    if not (rotary and architecture_of(gguf).interleaved_rope):
        return StreamedTensor(name, shape, lambda: _chunks(file, tensor, 1, read), stored)
    dim = head_dim(gguf)
    whole_heads = lambda: (_halves_apart(rows, dim) for rows in _chunks(file, tensor, dim, read))  # noqa: E731
    return StreamedTensor(name, shape, whole_heads, stored)


def _chunks(file: BinaryIO, tensor: TensorInfo, unit: int, read: _Read) -> Iterator[NDArray[Any]]:
    """The tensor [rows, columns] as it is read, in multiples of `unit` rows (whole heads)."""
    step = max(1, _CHUNK // (tensor.row_len * unit)) * unit
    for start in range(0, tensor.num_rows, step):
        yield read(file, tensor, start, min(start + step, tensor.num_rows))


def _halves_apart(rows: NDArray[Any], dim: int) -> NDArray[Any]:
    """Rows of each head from ggml's order, 0 h 1 h+1 ..., with h half of `dim`, back to 0 1 ... h h+1 ..."""
    heads = rows.reshape(-1, dim // 2, 2, rows.shape[-1])
    return np.ascontiguousarray(heads.swapaxes(1, 2)).reshape(rows.shape)
