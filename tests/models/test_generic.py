"""Models that run through transformers' own code: the same checks as for architectures of ours, on one rank."""

import json
import re
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers import __version__ as version

from oracles.build import ANSWER_LEN, build
from oracles.driver import Driver
from oracles.generic import REFUSED, SERVED, WRITTEN_FOR
from text_generation_server.architectures.registry import ARCHITECTURES
from text_generation_server.distributed.group import SingleRank
from text_generation_server.errors import UnsupportedModel
from text_generation_server.models.loading import ModelOptions, load_model

CPU = torch.device("cpu")
CLOSE = {"atol": 1e-4, "rtol": 0.0}


class TwoRanks(SingleRank):
    """Says that there are two."""

    world_size = 2


def load(directory, group=None, **options):
    return load_model(
        directory, ModelOptions(torch.float32, CPU, **options), group or SingleRank(), lambda _done, _total: None
    )


@pytest.fixture(scope="module", params=SERVED, ids=str)
def served(request, tmp_path_factory):
    """A model, as it is served, and what transformers alone answers."""
    directory = tmp_path_factory.mktemp("generic")
    reference = build(request.param, directory)
    return load(directory), reference


def test_a_prompt_in_one_step(served):
    model, reference = served
    (logits,) = Driver(model, reference.spans).step([(1, reference.sequences[1])])
    torch.testing.assert_close(logits, reference.logits[1], **CLOSE)


def test_a_ragged_batch_answers_greedily(served):
    model, reference = served
    answers, logits = Driver(model, reference.spans).greedy(reference.prompts, ANSWER_LEN)
    assert answers == reference.answers
    for row, expected in zip(logits, reference.logits, strict=True):
        torch.testing.assert_close(row, expected, **CLOSE)


def test_chunks_beside_a_decoding_row(served):
    model, reference = served
    driver = Driver(model, reference.spans)
    slow, fast = reference.sequences[:2]
    driver.step([(0, slow[:4])])
    for at, start in enumerate(range(0, 36, 6), start=4):
        decoded, got = driver.step([(0, slow[at : at + 1]), (1, fast[start : start + 6])])
        torch.testing.assert_close(decoded, reference.logits[0][at : at + 1], **CLOSE)
        torch.testing.assert_close(got, reference.logits[1][start : start + 6], **CLOSE)


def test_a_cached_prefix_is_shared(served):
    model, reference = served
    driver = Driver(model, [reference.spans[1]] * 2)
    sequence, expected = reference.sequences[1], reference.logits[1]
    driver.step([(0, sequence[:14])])
    driver.slots[1, :10] = driver.slots[0, :10]
    driver.lens[1] = 10
    (logits,) = driver.step([(1, sequence[10:])])
    torch.testing.assert_close(logits, expected[10:], **CLOSE)


def test_no_case_has_an_architecture_of_its_own():
    assert not {case.model_type for case in SERVED} & set(ARCHITECTURES)


@pytest.mark.parametrize("model_type", REFUSED)
def test_what_would_be_answered_wrongly_is_refused(model_type, tmp_path):
    config, reason = REFUSED[model_type]
    made = AutoConfig.for_model(model_type, **config)
    if made.is_encoder_decoder:
        made.save_pretrained(tmp_path)
    else:
        AutoModelForCausalLM.from_config(made).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModel) as refused:
        load(tmp_path)
        pytest.fail(f"{model_type} is served; the list is of transformers {WRITTEN_FOR}, this is {version}")
    assert re.search(reason, str(refused.value)), f"written for transformers {WRITTEN_FOR}, this is {version}"


@pytest.fixture(scope="module")
def nemotron(tmp_path_factory):
    directory = tmp_path_factory.mktemp("nemotron")
    build(SERVED[0], directory)
    return directory


def changed(directory, to, **values):
    shutil.copytree(directory, to, dirs_exist_ok=True)
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**config, **values}))
    return to


def test_more_than_one_shard_is_refused(nemotron):
    with pytest.raises(UnsupportedModel, match="cannot have more than one shard"):
        load(nemotron, TwoRanks())


def test_an_operator_s_rope_scaling_is_refused(nemotron):
    with pytest.raises(UnsupportedModel, match="cannot have another rope scaling"):
        load(nemotron, rope_scaling="linear", rope_factor=2.0)


def test_a_rotation_that_grows_with_its_neighbours_is_refused(nemotron, tmp_path):
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    with pytest.raises(UnsupportedModel, match="dynamic rotary scaling"):
        load(changed(nemotron, tmp_path, rope_parameters=rope))


def test_tensors_that_do_not_fit_are_named(nemotron, tmp_path):
    with pytest.raises(UnsupportedModel, match=r"missing keys \(model\.layers\.2"):
        load(changed(nemotron, tmp_path, num_hidden_layers=3))


def with_tensor(directory, to, name, shape):
    """The directory with one more tensor in its checkpoint."""
    shutil.copytree(directory, to, dirs_exist_ok=True)
    save_file({**load_file(to / "model.safetensors"), name: torch.zeros(shape)}, to / "model.safetensors")
    return to


def test_what_other_trainers_save_beside_parameters_is_skipped(nemotron, tmp_path):
    load(with_tensor(nemotron, tmp_path / "state", "model.layers.0.mlp.up_proj._extra_state", (3,)))
    load(with_tensor(nemotron, tmp_path / "mask", "model.layers.0.self_attn.bias", (1, 1, 4, 4)))
    with pytest.raises(UnsupportedModel, match=r"unexpected keys \(model\.layers\.0\.self_attn\.bias\)"):
        load(with_tensor(nemotron, tmp_path / "bias", "model.layers.0.self_attn.bias", (4,)))


def test_the_weights_are_those_of_a_complete_index(nemotron, tmp_path):
    shutil.copytree(nemotron, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").rename(tmp_path / "model-1.safetensors")
    listed = {"weight_map": dict.fromkeys(load_file(tmp_path / "model-1.safetensors"), "model-1.safetensors")}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, **listed}))
    save_file({"another": torch.zeros(1)}, tmp_path / "model.safetensors")
    load(tmp_path)
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(UnsupportedModel, match="missing keys"):
        load(tmp_path)


def test_a_quantised_model_is_called_that(nemotron, tmp_path):
    with pytest.raises(UnsupportedModel, match=r"quantization is .* not quantised; this one is by MLX"):
        load(changed(nemotron, tmp_path, quantization={"group_size": 64, "bits": 4}))


@pytest.fixture
def of_remote_code(nemotron, tmp_path, monkeypatch):
    """A type of its own, whose Python code is in the directory."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", list(sys.path))
    code = {"AutoConfig": "own_code.OwnConfig", "AutoModelForCausalLM": "own_code.OwnForCausalLM"}
    directory = changed(nemotron, tmp_path / "model", model_type="own", auto_map=code)
    (directory / "own_code.py").write_text(OWN_CODE)
    return directory


OWN_CODE = """
from transformers import NemotronConfig, NemotronForCausalLM

class OwnConfig(NemotronConfig):
    model_type = "own"

class OwnForCausalLM(NemotronForCausalLM):
    config_class = OwnConfig
"""


def test_code_of_the_directory_runs_only_when_trusted(nemotron, of_remote_code):
    with pytest.raises(UnsupportedModel, match="trust_remote_code"):
        load(of_remote_code)
    trusted, same = load(of_remote_code, trust_remote_code=True), load(nemotron)
    assert type(trusted.model).__name__ == "OwnForCausalLM"
    (got,), (expected,) = (Driver(model).step([(0, [5, 6, 7])]) for model in (trusted, same))
    torch.testing.assert_close(got, expected, **CLOSE)


def test_a_type_nobody_knows_is_refused(nemotron, tmp_path):
    with pytest.raises(UnsupportedModel, match="model_type 'perceptron' has no architecture here, and transformers"):
        load(changed(nemotron, tmp_path, model_type="perceptron"))
