"""A gpt-oss as it is published, but tiny: MXFP4 experts, harmony's channels, from the launcher to a chat's client."""

import json

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from oracles.case import LLAMA
from oracles.fp4 import is_experts, mxfp4, stacked
from oracles.quantised import QuantisedModel, quantise
from text_generation_server.tokenization.made_up import BYTES, made_up_tokenizer

MARKS = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"]
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m.role }}{{ '<|channel|>final' if m.role == 'assistant' }}"
    "<|message|>{{ m.content }}<|end|>{% endfor %}<|start|>assistant"
)
PROMPT = "<|start|>user<|message|>Rain?<|end|><|start|>assistant"
ANSWER = "<|channel|>analysis<|message|>Clouds.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>"
SIZES = {**LLAMA, "vocab_size": BYTES + len(MARKS), "hidden_size": 64, "intermediate_size": 32, "head_dim": 16}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 24}
MXFP4 = QuantisedModel(stacked(mxfp4("_blocks", "_scales", blocks=True)), {"quant_method": "mxfp4"}, chosen=is_experts)


def taught(model, prompt, answer):
    """The same model, which learnt to answer so by all that is not its experts' weights."""
    learning = [weight for name, weight in model.named_parameters() if not is_experts(name, weight)]
    optimizer = torch.optim.Adam(learning, lr=1e-2)
    ids = torch.tensor([prompt + answer])
    labels = torch.tensor([[-100] * len(prompt) + answer])
    for _ in range(150):
        loss = model(ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.02:
            return model
    raise AssertionError(f"it did not learn, its loss is {loss}")


@pytest.fixture
def model(one_thread, tmp_path):
    """Its directory."""
    torch.manual_seed(0)
    config = AutoConfig.for_model("gpt_oss", **{**SIZES, **EXPERTS, "eos_token_id": BYTES + 4})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "plain")
    means = quantise(tmp_path / "plain", tmp_path / "model", MXFP4)
    tokenizer = made_up_tokenizer(BYTES)
    tokenizer.add_special_tokens(MARKS)
    tokenizer.save(str(tmp_path / "model/tokenizer.json"))
    (tmp_path / "model/tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    model = taught(means, *(tokenizer.encode(text, add_special_tokens=False).ids for text in (PROMPT, ANSWER)))
    file = tmp_path / "model/model.safetensors"
    learnt = {name: weight for name, weight in model.state_dict().items() if not is_experts(name, weight)}
    save_file(load_file(file) | learnt, file)
    return tmp_path / "model"


def test_a_chat_gets_what_each_channel_is_for(launch, model):
    running = launch("--num-shard", "2", "--dtype", "float32", model=str(model))
    asked = {"messages": [{"role": "user", "content": "Rain?"}], "max_tokens": 120, "temperature": 0}
    body = httpx.post(f"{running.url}/v1/chat/completions", json=asked, timeout=60).json()
    message = body["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("Clouds.", "Yes.")
    assert body["choices"][0]["finish_reason"] == "stop" and running.stop() == 0
