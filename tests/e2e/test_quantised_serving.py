"""Quantised checkpoints are served with no option: what they are, they say themselves. A file can stay packed."""

from functools import partial

import httpx
import pytest
import torch

from conformance.tiny_model import tiny_model
from oracles.driver import Driver
from oracles.gguf_files import packed_gguf
from oracles.quantised import QuantisedModel, awq, gptq, in_bytes, of_table, packed, quantise
from text_generation_server.choices import Dtype
from text_generation_server.quantization.formats.made import NF4
from text_generation_server.quantization.formats.table import FORMATS
from text_generation_server.serve import find_model, load_rank
from text_generation_server.settings import ServeOptions, server_config

PROMPT = "Once upon a time"
TOKENS = 16

WORDS = {"weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}, "targets": ["Linear"]}
FOUR_BITS = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
ONE_SCALE = in_bytes(torch.float8_e4m3fn, (0, 0), shape=())
MODELS = {
    "gptq": QuantisedModel(gptq(4, 16, act_order=True), {"quant_method": "gptq", "bits": 4, "group_size": 16}),
    "awq": QuantisedModel(awq(32), {"w_bit": 4, "q_group_size": 32}, "quant_config.json"),
    "compressed-tensors": QuantisedModel(
        packed(),
        {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": {"group_0": WORDS},
            "ignore": ["lm_head"],
        },
    ),
    "fp8": QuantisedModel(
        in_bytes(torch.float8_e4m3fn, (32, 32), "weight_scale_inv"),
        {"quant_method": "fp8", "weight_block_size": [32, 32]},
    ),
    "modelopt": QuantisedModel(ONE_SCALE, {"quantization": {"quant_algo": "FP8"}}, "hf_quant_config.json"),
    "bitsandbytes": QuantisedModel(of_table("nf4", NF4, nested=True), {"quant_method": "bitsandbytes", **FOUR_BITS}),
}
MAKERS = {
    "gguf": packed_gguf(lambda _, number: ("Q4_1", "Q8_0", "Q5_0")[number % 3]),
    **{method: partial(quantise, model=model) for method, model in MODELS.items()},
}


ELSEWHERE = ["mxfp4"]
"""Started by the launcher in a test of its own."""


@pytest.mark.parametrize("method", [method for method in FORMATS if method not in ELSEWHERE])
def test_a_shard_needs_no_option(tmp_path, method):
    """Every other format that there is."""
    (tmp_path / "plain").mkdir()
    means = MAKERS[method](tiny_model(tmp_path / "plain"), tmp_path / "model")
    config = server_config(ServeOptions(str(tmp_path / "model"), dtype=Dtype.FLOAT32))
    rank = load_rank(config, find_model(config))
    ids = torch.arange(20, 60)
    with torch.inference_mode():
        expected = means(ids[None]).logits[0]
    got = Driver(rank.model).step([(0, ids.tolist())])[0]
    assert torch.equal(got.argmax(-1), expected.argmax(-1))


def test_the_launcher_needs_no_option(launch, tmp_path):
    (tmp_path / "plain").mkdir()
    means = MAKERS["gptq"](tiny_model(tmp_path / "plain"), tmp_path / "model")
    running = launch("--dtype", "float32", "--num-shard", "2", model=str(tmp_path / "model"))
    body = {"inputs": PROMPT, "parameters": {"max_new_tokens": TOKENS, "details": True}}
    details = httpx.post(f"{running.url}/generate", json=body, timeout=60).json()["details"]
    prompt = httpx.post(f"{running.url}/tokenize", json={"inputs": PROMPT}, timeout=60).json()
    ids = torch.tensor([[token["id"] for token in prompt]])
    with torch.inference_mode():
        for token in details["tokens"]:
            assert token["id"] == int(means(ids).logits[0, -1].argmax())
            ids = torch.cat((ids, torch.tensor([[token["id"]]])), 1)
    assert len(details["tokens"]) == TOKENS and running.stop() == 0


def test_a_file_stays_packed_where_that_is_asked_for(launch, server, cache):
    """The embedded model, whose file has 4 bits with minima, answers as where it is made plain."""
    running = launch("--quantize", "gguf")
    body = {"inputs": "What is Deep Learning?", "parameters": {"max_new_tokens": 5}}
    texts = [
        httpx.post(f"{url}/generate", json=body, timeout=60).json()["generated_text"]
        for url in (running.url, server.url)
    ]
    assert texts[0] == texts[1]
    (packed_directory,) = cache.glob("**/smollm2-*-packed")
    assert (packed_directory / "model.safetensors").stat().st_size < 200e6
    assert running.stop() == 0
