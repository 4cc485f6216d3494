"""Any rows and columns of a linear in a file are those of what another hand makes of it, whatever blocks they cut."""

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles.gguf_files import stored
from oracles.quantised import int8_rows, of_table
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.errors import UnsupportedModel
from text_generation_server.quantization.dense import DenseScheme
from text_generation_server.quantization.formats.bitsandbytes import Bitsandbytes
from text_generation_server.quantization.formats.gguf import Gguf
from text_generation_server.quantization.formats.made import FP4, NF4
from text_generation_server.weights.gguf.blocks import BLOCKS

DENSE = DenseScheme(torch.float32, torch.device("cpu"))
FOUR_BITS = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
WIDE = {**FOUR_BITS, "bnb_4bit_quant_storage": "float16"}
WRITTEN = {
    "nf4": (of_table("nf4", NF4), FOUR_BITS),
    "nf4 float16": (of_table("nf4", NF4, storage=torch.float16), WIDE),
    "fp4 nested": (of_table("fp4", FP4, nested=True, size=128), {**FOUR_BITS, "bnb_4bit_quant_type": "fp4"}),
    "int8": (int8_rows(), {"load_in_8bit": True}),
}


class Tensors(dict):
    """A checkpoint of one linear, `x`."""

    def has(self, name):
        return name in self

    def view(self, name, shape, dtype=None, others=()):
        assert self[name].shape == shape and dtype in (None, self[name].dtype)
        return self[name]

    def text(self, name):
        return bytes(self[name].tolist()).decode()


def decoded(coded):
    """[out, in] of what was read."""
    numbers = coded.codes.float() if coded.table is None else coded.table[coded.codes.long()]
    minima = 0 if coded.minima is None else coded.minima[:, coded.groups]
    return (numbers - coded.zero) * coded.scales[:, coded.groups] - minima


def cut(data, size):
    """A range of these, or some of them in any order."""
    ends = st.tuples(st.integers(0, size), st.integers(0, size)).map(lambda pair: slice(*sorted(pair)))
    numbers = st.lists(st.integers(0, size - 1), max_size=size)
    return data.draw(ends | numbers.map(lambda found: torch.tensor(found, dtype=torch.int64)))


@given(st.data(), st.sampled_from(list(BLOCKS)))
def test_of_every_type_of_gguf(data, kind):
    number = gguf.GGMLQuantizationType[kind]
    assert (BLOCKS[kind].numbers, BLOCKS[kind].length) == gguf.GGML_QUANT_SIZES[number]
    columns = 3 * gguf.GGML_QUANT_SIZES[number][0]
    raw = stored(
        np.random.default_rng(0).normal(size=(5, columns)).astype(np.float32), number, np.random.default_rng(1)
    )
    meant = torch.from_numpy(gguf.quants.dequantize(raw, number)).view(5, columns)
    found = Gguf(DENSE).find(Tensors({f"x.{kind}": torch.from_numpy(raw)}), "x", (5, columns), transposed=False)
    rows, inputs = cut(data, 5), cut(data, columns)
    torch.testing.assert_close(decoded(found.read(rows, inputs)), meant[rows][:, inputs], rtol=0, atol=1e-6)


@given(st.data(), st.sampled_from(list(WRITTEN)), st.sampled_from([128, 96, 20]))
def test_of_what_bitsandbytes_wrote(data, form, inputs):
    """Blocks are within rows, or go on in the next."""
    write, config = WRITTEN[form]
    tensors, meant = write(torch.from_numpy(np.random.default_rng(0).normal(size=(8, inputs))).float(), None)
    checkpoint = Tensors({f"x.{last}": tensor for last, tensor in tensors.items()})
    found = Bitsandbytes.of(ConfigDict(config), DENSE).find(checkpoint, "x", (8, inputs), transposed=False)
    rows, columns = cut(data, 8), cut(data, inputs)
    torch.testing.assert_close(decoded(found.read(rows, columns)), meant[rows][:, columns], rtol=0, atol=1e-6)


@pytest.mark.parametrize("said", ["", "{", "[]", "null", '{"blocksize": 0}', '{"blocksize": "64"}', "[" * 100_000])
def test_a_state_of_any_kind_is_read_or_refused(said):
    name = "x.weight.quant_state.bitsandbytes__nf4"
    checkpoint = Tensors({name: torch.tensor(list(said.encode()), dtype=torch.uint8)})
    found = Bitsandbytes.of(ConfigDict(FOUR_BITS), DENSE).find(checkpoint, "x", (8, 64), transposed=False)
    with pytest.raises(UnsupportedModel, match=r"quant_state|blocksize"):
        found.read(slice(0, 8), slice(0, 64))


def test_other_orders_of_bytes_are_refused():
    checkpoint = Tensors({"x.weight_format": torch.tensor(1, dtype=torch.uint8)})
    found = Bitsandbytes.of(ConfigDict({"load_in_8bit": True}), DENSE).find(checkpoint, "x", (8, 64), transposed=False)
    with pytest.raises(UnsupportedModel, match="weight_format is 1"):
        found.read(slice(0, 8), slice(0, 64))
