"""Whatever a quantization_config holds: a format, or a refusal that names the key; never another error."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from text_generation_server.config.configdict import ConfigDict
from text_generation_server.config.quantised import quantisation_of
from text_generation_server.errors import UnsupportedModel
from text_generation_server.quantization.dense import DenseScheme
from text_generation_server.quantization.formats.table import FORMATS, scheme_of
from text_generation_server.quantization.scheme import CodedScheme

DENSE = DenseScheme(torch.float32, torch.device("cpu"))
KEYS = [
    *("quant_method", "bits", "w_bit", "group_size", "q_group_size", "desc_act", "version", "checkpoint_format"),
    *("format", "fmt", "dynamic", "lm_head", "weight_block_size", "config_groups", "group_0", "ignore", "targets"),
    *("weights", "num_bits", "type", "strategy", "block_structure", "symmetric", "input_activations", "quant_algo"),
    *("kv_cache_scheme", "sparsity_config", "transform_config"),
    *("load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type", "bnb_4bit_quant_storage", "bnb_4bit_use_double_quant"),
]
GROUP = {
    "targets": ["Linear"],
    "weights": {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [128, 128], "symmetric": True},
    "input_activations": {"num_bits": 8, "type": "float"},
    "format": "float-quantized",
}
WORDS = [
    *FORMATS,
    "gemm",
    "gptq_v2",
    "pack-quantized",
    "int-quantized",
    "int",
    "float",
    "group",
    "channel",
    "block",
    "Linear",
    "nf4",
    "bfloat16",
]

plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2, 4, 8, 32, 128, -1])
    | st.floats()
    | st.sampled_from(WORDS)
)
anything = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=8),
    max_leaves=30,
)


@given(st.sampled_from(list(FORMATS)) | anything, st.dictionaries(st.sampled_from(KEYS), anything))
def test_any_config_is_read_or_refused(tmp_path_factory, method, values):
    config = ConfigDict({"quantization_config": {**values, "quant_method": method}})
    try:
        assert isinstance(scheme_of(quantisation_of(tmp_path_factory.getbasetemp(), config), None, DENSE), CodedScheme)
    except UnsupportedModel as error:
        assert any(key in str(error) for key in (*KEYS, "quantization_config", "sections"))


@given(anything)
def test_a_section_of_any_kind_is_read_or_refused(tmp_path_factory, section):
    try:
        found = quantisation_of(tmp_path_factory.getbasetemp(), ConfigDict({"quantization_config": section}))
    except UnsupportedModel as error:
        assert "quantization_config" in str(error)
    else:
        assert found is None if section is None else found.get("quant_method") is not None


def test_the_files_of_older_writers_are_found(tmp_path):
    assert quantisation_of(tmp_path, ConfigDict({})) is None
    (tmp_path / "quant_config.json").write_text('{"w_bit": 4, "q_group_size": 64}')
    found = quantisation_of(tmp_path, ConfigDict({}))
    assert found is not None and found.text("quant_method") == "awq" and found.integer("q_group_size") == 64
    (tmp_path / "quantize_config.json").write_text("[]")
    with pytest.raises(UnsupportedModel, match=r"quantize_config\.json"):
        quantisation_of(tmp_path, ConfigDict({}))


@given(st.sampled_from([*GROUP, *GROUP["weights"]]), anything)
def test_any_group_is_read_or_refused(tmp_path_factory, key, value):
    weights = {**GROUP["weights"], **({key: value} if key in GROUP["weights"] else {})}
    group = {**GROUP, "weights": weights, **({} if key in GROUP["weights"] else {key: value})}
    config = {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"group_0": group}}
    try:
        scheme_of(ConfigDict(config), None, DENSE)
    except UnsupportedModel as error:
        assert key in str(error) or "num_bits" in str(error) or "strategy" in str(error)
