"""Quantised checkpoints on a GPU: each format that is read there as on a CPU, by the logits of a small model."""

import json

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from oracles.driver import Driver
from oracles.gguf_files import packed_gguf
from oracles.quantised import QuantisedModel, int8_rows, of_table, quantise
from text_generation_server.distributed.group import SingleRank
from text_generation_server.models.loading import ModelOptions, load_model
from text_generation_server.quantization.formats.made import NF4

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

SIZES = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2}
BLOCKS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"]
FOUR_BITS = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
FORMATS = {
    "gguf": packed_gguf(lambda _, number: BLOCKS[number % len(BLOCKS)]),
    "nf4": lambda plain, directory: quantise(
        plain, directory, QuantisedModel(of_table("nf4", NF4, nested=True), FOUR_BITS)
    ),
    "int8": lambda plain, directory: quantise(
        plain, directory, QuantisedModel(int8_rows(), {"quant_method": "bitsandbytes", "load_in_8bit": True})
    ),
}


@pytest.mark.parametrize("form", FORMATS)
def test_a_format_means_the_same_as_elsewhere(tmp_path, form):
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=104, num_hidden_layers=3, max_position_embeddings=128, **SIZES)
    model = LlamaForCausalLM(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.dim() == 1 else 0.0, 0.1)
    model.save_pretrained(tmp_path / "plain")
    means = FORMATS[form](tmp_path / "plain", tmp_path / "model")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["quantization_config"]
    sequence = torch.randint(104, (40,)).tolist()
    with torch.inference_mode():
        expected = means(torch.tensor([sequence])).logits[0]
    options = ModelOptions(torch.float16, torch.device("cuda"))
    served = load_model(tmp_path / "model", options, SingleRank(), lambda _done, _total: None)
    (logits,) = Driver(served, [64]).follow([sequence], 4)
    assert (logits.float().cpu() - expected).norm() < 0.01 * expected.norm()
