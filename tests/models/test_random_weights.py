"""Weights that are made up: the same on every rank and at every start, and answers that are worth timing."""

import json

import pytest
import torch

from oracles.driver import Driver
from oracles.table import CASES
from text_generation_server.distributed.group import SingleRank
from text_generation_server.errors import UnsupportedModel
from text_generation_server.models.loading import ModelOptions, load_model
from text_generation_server.weights.random import RandomCheckpoint

LLAMA = {
    "model_type": "llama", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip


def load(directory, config, dtype=torch.float32, progress=lambda _done, _total: None):
    (directory / "config.json").write_text(json.dumps(config))
    options = ModelOptions(dtype, torch.device("cpu"), random_weights=True)
    return load_model(directory, options, SingleRank(), progress)


def checkpoint():
    return RandomCheckpoint(torch.float32, torch.device("cpu"), lambda _done, _total: None)


def test_a_tensor_follows_from_its_name():
    first, again = checkpoint(), checkpoint()
    again.view("other.weight", (7, 5))
    weight = first.view("some.weight", (64, 32))
    assert torch.equal(again.view("some.weight", (64, 32)), weight)
    assert not torch.equal(first.view("other.weight", (64, 32)), weight)


def test_sizes_keep_activations_near_one():
    x = torch.nn.functional.normalize(torch.randn(100, 256, generator=torch.Generator().manual_seed(0))) * 16
    y = x @ checkpoint().view("up.weight", (400, 256)).T
    assert 1.3 < y.std() < 1.7
    for name, shape in (("model.norm.weight", (256,)), ("layers.0.attn.q_norm.weight", (8, 32))):
        norm = checkpoint().view(name, shape)
        assert abs(norm.mean() - 1) < 0.01 and 0.01 < norm.std() < 0.03
    bias = checkpoint().view("up.bias", (256,))
    assert abs(bias.mean()) < 0.01 and 0.01 < bias.std() < 0.03


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_greedy_answers_vary(tmp_path, tied, dtype):
    model = load(tmp_path, {**LLAMA, "tie_word_embeddings": tied}, dtype)
    (answer,), logits = Driver(model).greedy([[72, 105]], 32)
    assert len(set(answer)) > 8
    assert 0.5 < logits[0].float().std() < 4


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_architecture_can_be_made_up(case, oracle_of, tmp_path):
    config = json.loads((oracle_of(case.name).directory / "config.json").read_text())
    (logits,) = Driver(load(tmp_path, config)).step([(0, [5, 17, 33])])
    allowed = logits[:, (logits > -torch.inf).all(0)]  # never some of Llama 3.2 Vision's, which are no outputs
    assert allowed.shape[1] > 0.9 * logits.shape[1] and allowed.isfinite().all() and 0.01 < allowed.std() < 50


def test_scales_that_are_exponents_can_be_made_up(oracle_of, tmp_path):
    config = json.loads((oracle_of("gpt_oss").directory / "config.json").read_text())
    quantised = {"intermediate_size": 64, "quantization_config": {"quant_method": "mxfp4"}}
    (logits,) = Driver(load(tmp_path, config | quantised)).step([(0, [5, 17, 33])])
    assert logits.isfinite().all() and 0.01 < logits.std() < 50


def test_the_bytes_made_are_reported_once(tmp_path):
    reports = []
    load(tmp_path, LLAMA, progress=lambda *report: reports.append(report))
    layer = 64 * (64 + 2 * 32 + 64) + 3 * 64 * 128 + 2 * 64
    assert reports == [(4 * (2 * 512 * 64 + 2 * layer + 64),) * 2]


def test_only_architectures_of_our_own(tmp_path):
    with pytest.raises(UnsupportedModel, match="cannot have random weights"):
        load(tmp_path, {"model_type": "some_other"})
