"""Quantised checkpoints are served with no option: what they are, they say themselves."""

import httpx
import pytest
import torch

from conformance.tiny_model import tiny_model
from oracles.quantised import QuantisedModel, awq, gptq, quantise

PROMPT = "Once upon a time"
TOKENS = 16


@pytest.mark.parametrize(
    ("model", "ranks"),
    [
        (QuantisedModel(gptq(4, 16, act_order=True), {"quant_method": "gptq", "bits": 4, "group_size": 16}), "2"),
        (QuantisedModel(awq(32), {"w_bit": 4, "q_group_size": 32}, "quant_config.json"), "1"),
    ],
    ids=["gptq", "awq"],
)
def test_the_launcher_needs_no_option(launch, tmp_path, model, ranks):
    (tmp_path / "plain").mkdir()
    means = quantise(tiny_model(tmp_path / "plain"), tmp_path / "model", model)
    running = launch("--dtype", "float32", "--num-shard", ranks, model=str(tmp_path / "model"))
    body = {"inputs": PROMPT, "parameters": {"max_new_tokens": TOKENS, "details": True}}
    details = httpx.post(f"{running.url}/generate", json=body, timeout=60).json()["details"]
    prompt = httpx.post(f"{running.url}/tokenize", json={"inputs": PROMPT}, timeout=60).json()
    ids = torch.tensor([[token["id"] for token in prompt]])
    with torch.inference_mode():
        for token in details["tokens"]:
            assert token["id"] == int(means(ids).logits[0, -1].argmax())
            ids = torch.cat((ids, torch.tensor([[token["id"]]])), 1)
    assert len(details["tokens"]) == TOKENS and running.stop() == 0
