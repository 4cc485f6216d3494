"""`tie_word_embeddings: true` beside a head in the checkpoint: one that differs is the head, an equal one is left."""

from dataclasses import replace

import pytest
import torch
from loguru import logger
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers import __version__ as version

from oracles.build import build
from oracles.case import plain_logits
from oracles.driver import Driver
from oracles.generic import SERVED
from oracles.table import CASES
from text_generation_server.distributed.group import SingleRank
from text_generation_server.models.loading import ModelOptions, load_model
from text_generation_server.models.tensors import TensorReader

TOKENS = [5, 6, 7, 8]
TIED = {
    case.name: replace(case, config={**case.config, "tie_word_embeddings": True})
    for case in (*CASES, *SERVED)
    if case.name in ("gpt2", "llama", "gemma", "nemotron")
}
"""Nemotron is one that runs through transformers' code."""


@pytest.fixture
def told():
    """Warnings."""
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


def saved(name, directory, head):
    """A tied model with a head in its checkpoint, made from the embedding."""
    build(TIED[name], directory)
    tensors = load_file(directory / "model.safetensors")
    assert "lm_head.weight" not in tensors
    (embedding,) = (tensors[name] for name in tensors if name.endswith(("embed_tokens.weight", "wte.weight")))
    save_file({**tensors, "lm_head.weight": head(embedding)}, directory / "model.safetensors", {"format": "pt"})
    return directory


def load(directory):
    options = ModelOptions(torch.float32, torch.device("cpu"))
    return load_model(directory, options, SingleRank(), lambda _done, _total: None)


@pytest.mark.parametrize("name", TIED)
def test_a_head_that_differs_is_the_head(name, tmp_path, told):
    directory = saved(name, tmp_path, lambda embedding: embedding.flip(0).contiguous())
    theirs = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.inference_mode():
        expected = plain_logits(theirs, torch.tensor([TOKENS]))
    (got,) = Driver(load(directory)).step([(0, TOKENS)])
    why = f"written for transformers 5.24, which uses the head, this is {version}"
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0.0, msg=lambda text: f"{why}: {text}")
    (warning,) = (line for line in told if "tie_word_embeddings" in line)
    assert "the checkpoint's lm_head.weight differs from its " in warning and "used as the head" in warning


@pytest.mark.parametrize("name", TIED)
def test_an_equal_head_stays_tied(name, tmp_path, told, monkeypatch):
    """No second table in memory, and nothing to be told."""
    heads, read = [], TensorReader.tied_head

    def tied_head(self, table, stored, *rest):
        heads.append(stored)
        return read(self, table, stored, *rest)

    monkeypatch.setattr(TensorReader, "tied_head", tied_head)
    model = load(saved(name, tmp_path, torch.clone))
    if hasattr(model, "model"):
        assert model.model.get_output_embeddings().weight is model.model.get_input_embeddings().weight
    else:
        (stored,) = heads
        assert "embed" in stored.name or "wte" in stored.name
    assert not [line for line in told if "tie_word_embeddings" in line]
