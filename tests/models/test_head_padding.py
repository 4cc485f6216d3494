"""Heads with zeros behind, for kernels that lack their size, answer as heads without."""

import pytest
import torch
from loguru import logger

from mocks.padded_attention import PADDING
from oracles.build import ANSWER_LEN, build
from oracles.driver import Driver
from oracles.generic import SERVED
from text_generation_server.attention import base, flashinfer
from text_generation_server.attention.base import AttentionShape, AttentionVariant
from text_generation_server.cache.paged import PagedSpec
from text_generation_server.distributed.group import SingleRank
from text_generation_server.models.loading import ModelOptions, load_model

PADDED = ModelOptions(torch.float32, torch.device("cpu"), attention="padded")
CASES = {
    "llama-biases": "biases of all projections",
    "gpt_neox": "fused by head, with biases, a part rotated",
    "gptj": "a part rotated, interleaved",
    "chatglm": "fused, interleaved, with biases",
    "baichuan-13b": "fused, linear biases",
    "gpt2": "stored [in, out]",
    "gpt_bigcode": "one key head",
    "santacoder": "queries apart from keys and values",
    "falcon-40b": "fused by group, a scale that follows from the size",
    "qwen3": "norms of heads",
    "stablelm-12b": "norms with means, each head its own weights",
    "cohere-qk-norm": "norms with means, in parallel branches",
    "olmo2": "norms over all heads",
    "olmo": "bounded values",
    "gemma2": "windows, a soft cap, a scale of its own",
}


@pytest.fixture(autouse=True)
def padded_backend(monkeypatch):
    """A backend by the name `padded`."""
    monkeypatch.setitem(base.BACKENDS, "padded", "mocks.padded_attention:PaddedAttention")


@pytest.fixture
def log():
    """What is logged."""
    lines = []
    sink = logger.add(lambda line: lines.append(str(line)), format="{message}", level="INFO")
    yield lines
    logger.remove(sink)


def check(model, reference, tolerance):
    answers, logits = Driver(model, reference.spans).greedy(reference.prompts, ANSWER_LEN)
    assert answers == reference.answers
    for row, expected in zip(logits, reference.logits, strict=True):
        torch.testing.assert_close(row, expected, atol=tolerance, rtol=0.0)


@pytest.mark.parametrize("oracle", CASES, indirect=True)
def test_answers_stay_the_same(oracle):
    model = oracle.load(PADDED)
    assert model.kv.head_dim == oracle.load().kv.head_dim + PADDING
    check(model, oracle.reference, oracle.case.tolerance)


def test_models_through_transformers_are_padded_as_they_run(tmp_path):
    reference = build(SERVED[0], tmp_path)
    model = load_model(tmp_path, PADDED, SingleRank(), lambda _done, _total: None)
    assert model.kv.head_dim == 8 + PADDING
    check(model, reference, SERVED[0].tolerance)


def test_the_log_tells_the_cost(oracle_of, log):
    oracle_of("llama").load(PADDED)
    (line,) = (line for line in log if "get zeros" in line)
    assert "Heads of 8 numbers get zeros up to the 16 that padded takes" in line and "2.00 times the memory" in line


def test_flashinfer_takes_heads_up_to_its_widest(monkeypatch):
    def why_not(head_dim):
        state = PagedSpec(1, 4, head_dim, torch.bfloat16, torch.device("cuda"))
        return flashinfer.FlashInferAttention.why_not(AttentionShape((AttentionVariant(),), 4, state))

    monkeypatch.setattr(flashinfer, "find_spec", lambda _name: object())
    assert [why_not(head_dim) for head_dim in (32, 80, 96, 112, 128, 160, 256)] == [None] * 7
    assert why_not(288) == "heads have 288 numbers, more than 256"
