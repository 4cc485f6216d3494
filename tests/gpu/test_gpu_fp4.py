"""Checkpoints of 4-bit floats on a CUDA device: what few tokens and many get, against transformers on the CPU."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from oracles.driver import Driver
from oracles.fp4 import is_experts, mxfp4, nvfp4, stacked
from oracles.quantised import QuantisedModel, quantise
from text_generation_server.distributed.group import SingleRank
from text_generation_server.models.loading import ModelOptions, load_model

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

SIZES = {
    **{"vocab_size": 97, "hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 192, "pad_token_id": 0},
}
GPT_OSS = {**SIZES, "num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": 9}
MODELS = {
    "mxfp4": (
        "gpt_oss",
        GPT_OSS,
        QuantisedModel(stacked(mxfp4("_blocks", "_scales", blocks=True)), {"quant_method": "mxfp4"}, chosen=is_experts),
    ),
    "nvfp4": (
        "llama",
        SIZES,
        QuantisedModel(
            nvfp4("weight", "weight_scale_2", divides=False), {"quant_method": "modelopt", "quant_algo": "NVFP4"}
        ),
    ),
}
SEQUENCE = torch.randint(97, (300,), generator=torch.Generator().manual_seed(0)).tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("form", MODELS)
def test_a_model_is_the_one_that_its_weights_stand_for(tmp_path, form, dtype):
    model_type, sizes, model = MODELS[form]
    torch.manual_seed(1)
    plain = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **sizes))
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.dim() == 1 else 0.0, 0.1)
    plain.save_pretrained(tmp_path / "plain")
    means = quantise(tmp_path / "plain", tmp_path / "model", model)
    with torch.inference_mode():
        expected = means(torch.tensor([SEQUENCE]), use_cache=False).logits[0]
    options = ModelOptions(dtype, torch.device("cuda"), attention="triton")
    driver = Driver(load_model(tmp_path / "model", options, SingleRank(), lambda _done, _total: None), [512])
    (got,) = driver.follow([SEQUENCE], 4)
    assert (got.float() - expected).std() < {torch.float16: 0.03, torch.bfloat16: 0.2}[dtype] * expected.std()
