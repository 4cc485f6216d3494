"""config.json in the spelling of transformers up to 4 says the same as in that of 5, for every case."""

import json

import pytest
from transformers import AutoConfig

from oracles.table import CASES
from text_generation_server.architectures.registry import read_spec
from text_generation_server.config.configdict import ConfigDict

OURS = [case for case in CASES if case.written is None]


def old_spelling(values):
    """Rotary keys at the top, scaling apart, torch_dtype."""
    old = {key: value for key, value in values.items() if key not in ("rope_parameters", "dtype")}
    old["torch_dtype"] = values.get("dtype")
    parameters = values.get("rope_parameters") or {}
    if "full_attention" in parameters:
        old["rope_theta"] = parameters["full_attention"]["rope_theta"]
        old["rope_local_base_freq"] = parameters["sliding_attention"]["rope_theta"]
        parameters = parameters["full_attention"]
    for key in ("rope_theta", "partial_rotary_factor"):
        if key in parameters:
            old[key] = parameters[key]
    scaling = {key: value for key, value in parameters.items() if key not in ("rope_theta", "partial_rotary_factor")}
    if scaling.get("rope_type", "default") != "default":
        old["rope_scaling"] = {**scaling, "type": scaling["rope_type"]}
        del old["rope_scaling"]["rope_type"]
    return old


@pytest.mark.parametrize("case", OURS, ids=str)
def test_both_spellings_say_the_same(case):
    new = json.loads(AutoConfig.for_model(case.model_type, **case.config).to_json_string())
    assert read_spec(ConfigDict(old_spelling(new))) == read_spec(ConfigDict(new))
