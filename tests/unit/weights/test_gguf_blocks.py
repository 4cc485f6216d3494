"""Block formats against the gguf package's own decoding, bit for bit."""

from typing import Any

import gguf
import numpy as np
import pytest

from text_generation_server.weights.gguf.blocks import FORMATS

_SCALES = ("d", "m", "dmin", "x")


def _random_blocks(kind: int, count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Any bytes, except that scales are finite."""
    rng = np.random.default_rng(kind)
    raw = rng.integers(0, 256, count * FORMATS[kind].record.itemsize, dtype=np.uint8)
    records = raw.view(FORMATS[kind].record)
    for name in set(_SCALES) & set(records.dtype.names or ()):
        finite = rng.standard_normal(count)
        records[name] = finite if records[name].dtype.kind == "f" else records[name] & 0x3FFF
    return raw


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: FORMATS[kind].name)
def test_blocks_decode_as_in_ggml(kind: int) -> None:
    raw = _random_blocks(kind, 33)
    expected = gguf.quants.dequantize(raw.reshape(33, -1), gguf.GGMLQuantizationType(kind)).reshape(-1)
    decoded = FORMATS[kind].dequantize(raw)
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: FORMATS[kind].name)
def test_names_and_sizes_are_those_of_ggml(kind: int) -> None:
    ours, theirs = FORMATS[kind], gguf.GGMLQuantizationType(kind)
    assert ours.name == theirs.name
    assert (ours.size, ours.record.itemsize) == gguf.GGML_QUANT_SIZES[theirs]
