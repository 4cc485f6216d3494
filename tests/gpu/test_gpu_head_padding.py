"""Heads of sizes that FlashInfer lacks, with zeros behind, on its kernels: as transformers answers on the CPU."""

import pytest
import torch

from oracles.build import build
from oracles.case import LLAMA, Case
from oracles.driver import Driver
from text_generation_server.distributed.group import SingleRank
from text_generation_server.models.loading import ModelOptions, load_model

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

CASES = [
    Case("llama-80", "", "llama", {**LLAMA, "head_dim": 80}, "plain"),
    Case("qwen3-96", "", "qwen3", {**LLAMA, "head_dim": 96}, "norms of heads"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_padded_heads_answer_as_on_the_cpu(case, tmp_path):
    reference = build(case, tmp_path)
    options = ModelOptions(torch.bfloat16, torch.device("cuda"), attention="flashinfer")
    driver = Driver(load_model(tmp_path, options, SingleRank(), lambda _done, _total: None), reference.spans)
    assert driver.model.kv.head_dim == 128
    for got, expected in zip(driver.follow(reference.sequences, 4), reference.logits, strict=True):
        assert (got.float() - expected).std() < 0.05 * expected.std()
