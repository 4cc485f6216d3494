"""From a directory to a model: hub spellings, other types, refusals. Numbers are checked where a mistake could hide."""

import json
import shutil
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file

from oracles.driver import Driver
from text_generation_server.distributed.group import SingleRank
from text_generation_server.errors import UnsupportedModel
from text_generation_server.layers.embedding import ParallelLMHead
from text_generation_server.layers.linear import ColumnParallelLinear, RowParallelLinear
from text_generation_server.models.build_attention import AttentionBuilder
from text_generation_server.models.loading import ModelOptions, load_model


@pytest.fixture
def changed(oracle_of, tmp_path):
    """A copy of a case's model with other tensors or config values."""

    def change(case, tensors=lambda kept: kept, **config):
        directory = tmp_path / case
        shutil.copytree(oracle_of(case).directory, directory)
        file = directory / "model.safetensors"
        save_file(tensors(load_file(file)), file)
        values = json.loads((directory / "config.json").read_text())
        (directory / "config.json").write_text(json.dumps({**values, **config}))
        return directory

    return change


def load(directory, **options):
    """On one CPU rank, in float32 unless said otherwise."""
    settings = {"dtype": torch.float32, "device": torch.device("cpu"), **options}
    return load_model(directory, ModelOptions(**settings), SingleRank(), lambda _done, _total: None)


def logits(model, tokens):
    (answer,) = Driver(model).step([(0, tokens)])
    return answer


def test_a_model_says_what_the_engine_must_know(oracle_of):
    model = oracle_of("llama").load()
    assert (model.vocab_size, model.max_positions) == (97, 128)
    assert (model.kv.num_layers, model.kv.kv_heads, model.kv.head_dim) == (2, 2, 8)
    assert oracle_of("bloom").load().max_positions is None


def test_no_product_is_asked_for_no_rows(oracle_of, monkeypatch):
    """Chunks that choose nothing want no logits; kernels on a GPU cannot be compiled for nothing."""
    rows = []
    for linear in (ColumnParallelLinear, RowParallelLinear, ParallelLMHead):
        multiply = linear.__call__
        monkeypatch.setattr(
            linear, "__call__", lambda self, x, *step, of=multiply: rows.append(len(x)) or of(self, x, *step)
        )
    driver = Driver(oracle_of("llama").load())
    assert driver.pick([(0, [5, 6, 7])], []).shape == (0, 97)
    assert set(rows) == {3, 1}


@pytest.mark.parametrize("case", ["llama", "gemma", "bloom", "falcon-40b"])
def test_bfloat16_is_float32_up_to_rounding(oracle_of, case):
    oracle = oracle_of(case)
    model = oracle.load(ModelOptions(torch.bfloat16, torch.device("cpu")))
    got, expected = logits(model, oracle.reference.sequences[1]), oracle.reference.logits[1]
    assert got.dtype is torch.bfloat16
    assert (got.float() - expected).std() < 0.1 * expected.std()


def test_a_head_counts_where_nothing_is_said(changed):
    directory = changed("gpt2", lambda kept: {**kept, "lm_head.weight": torch.zeros(97, 32)}, tie_word_embeddings=None)
    assert not logits(load(directory), [5, 6, 7]).any()


def test_a_missing_head_is_named(changed):
    with pytest.raises(UnsupportedModel, match=r"no tensor lm_head\.weight"):
        load(changed("llama", lambda kept: {n: t for n, t in kept.items() if n != "lm_head.weight"}))


def test_a_tensor_that_is_left_over_is_named(changed):
    with pytest.raises(UnsupportedModel, match=r"model\.layers\.0\.self_attn\.q_norm\.weight"):
        load(changed("llama", lambda kept: {**kept, "model.layers.0.self_attn.q_norm.weight": torch.ones(8)}))


def test_a_config_of_another_size_is_refused(changed):
    with pytest.raises(UnsupportedModel, match=r"embed_tokens\.weight has shape \[97, 32\], .* implies \[98, 32\]"):
        load(changed("llama", vocab_size=98))


@pytest.mark.parametrize(("kind", "span"), [("linear", 64), ("dynamic", 300)])
def test_an_operator_s_scaling_acts(oracle_of, kind, span):
    oracle = oracle_of("llama")
    tokens = oracle.reference.sequences[1]
    scaled = load(oracle.directory, rope_scaling=kind, rope_factor=3.0)
    assert scaled.max_positions == 384
    (answer,) = Driver(scaled, [span]).step([(0, tokens)])
    assert (answer - oracle.reference.logits[1]).abs().max() > 0.1
    same = load(oracle.directory, rope_scaling=kind, rope_factor=1.0)
    torch.testing.assert_close(logits(same, tokens), oracle.reference.logits[1], atol=1e-4, rtol=0.0)


def test_scaling_is_refused_where_nothing_rotates(oracle_of):
    with pytest.raises(UnsupportedModel, match="no rotary positions"):
        load(oracle_of("bloom").directory, rope_scaling="linear", rope_factor=2.0)


def test_weights_are_read_while_attention_is_made(oracle_of, monkeypatch):
    """Some backends import libraries for seconds."""
    read, make, layer = threading.Event(), AttentionBuilder.make_backend, AttentionBuilder.layer
    monkeypatch.setattr(AttentionBuilder, "make_backend", lambda builder: read.wait(5) and make(builder))
    monkeypatch.setattr(AttentionBuilder, "layer", lambda builder, *which: (layer(builder, *which), read.set())[0])
    assert load(oracle_of("llama").directory).attention.name == "sdpa"


def test_progress_reaches_the_whole_checkpoint(oracle_of):
    reports = []
    options = ModelOptions(torch.float32, torch.device("cpu"))
    load_model(oracle_of("llama").directory, options, SingleRank(), lambda *report: reports.append(report))
    assert reports == sorted(reports)
    assert reports[-1][0] == reports[-1][1] > 0
