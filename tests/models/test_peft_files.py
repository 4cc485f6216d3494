"""Adapters that the real PEFT writes: served as PEFT answers with them merged, or refused by name."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from oracles.driver import Driver
from oracles.lora import place
from text_generation_server.adapters.matching import match
from text_generation_server.adapters.pairs import read_adapter
from text_generation_server.adapters.targets import targets_of
from text_generation_server.errors import UnsupportedModel

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT tells much

TOKENS = [5, 9, 6, 7, 80, 12, 33, 3, 41]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
PATTERNS = {"rank_pattern": {r"layers\.1\.mlp\..*": 5, "q_proj": 1}, "alpha_pattern": {"o_proj": 7.0}}


@pytest.fixture
def written(oracle_of, tmp_path):
    """Let PEFT make an adapter of random numbers to a case's model; returns its directory and its merged model."""

    def write(name, **config):
        oracle = oracle_of(name)
        more = {key: oracle.case.config[key] for key in ("experts_implementation",) if key in oracle.case.config}
        model = AutoModelForCausalLM.from_pretrained(oracle.directory, dtype=torch.float32, **more)
        torch.manual_seed(2)
        adapted = get_peft_model(model.eval(), LoraConfig(**{"r": 3, "lora_alpha": 2.0} | config))
        for parameter_name, parameter in adapted.named_parameters():
            if "lora_" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.3)
        adapted.save_pretrained(tmp_path / "law")
        return tmp_path / "law", adapted.merge_and_unload()

    return write


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("mixtral", {"target_modules": ["q_proj", "o_proj"], "target_parameters": EXPERTS}),
        ("mixtral", {"target_modules": "all-linear"}),
        ("qwen2_moe", {"target_modules": "all-linear", "target_parameters": EXPERTS[1:]}),
        ("qwen3_moe-dense", {"target_modules": ["gate_proj", "up_proj", "v_proj"], "target_parameters": EXPERTS[:1]}),
        ("llama", {"target_modules": ["q_proj", "o_proj", "up_proj"], "use_rslora": True, **PATTERNS}),
        ("llama", {"target_modules": r".*\.(k|down)_proj", "exclude_modules": r".*\.0\.mlp\..*"}),
        ("llama", {"target_modules": ["v_proj", "down_proj"], "layers_to_transform": [1]}),
        ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    ],
)
@torch.inference_mode()
def test_what_peft_writes_answers_as_what_it_merges(written, oracle_of, name, config):
    directory, merged = written(name, **config)
    model = oracle_of(name).load()
    plain = Driver(model).step([(0, TOKENS)])[0]
    place(model, [directory])
    adapted = Driver(model, adapters=[1, 0, 0, 0]).step([(0, TOKENS)])[0]
    expected = merged(torch.tensor([TOKENS]), use_cache=False).logits[0]
    torch.testing.assert_close(adapted, expected, atol=oracle_of(name).case.tolerance, rtol=1e-4)
    assert (adapted - plain).abs().max() > 0.05


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"use_dora": True}, "use_dora is True, expected an adapter without it"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save is \['lm_head'\], expected an adapter without it"),
        ({"trainable_token_indices": [3]}, r"trainable_token_indices is \[3\]"),
        ({"bias": "lora_only"}, "bias is 'lora_only'"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "embed_tokens.*, which is not served"),
        ({"target_modules": ["q_proj", "lm_head"]}, "lm_head.*, which is not served"),
        ({"target_parameters": ["q_proj.weight"]}, "q_proj, which target_modules of .* leave out"),
    ],
)
def test_what_is_not_served_is_named(written, oracle_of, config, named):
    directory, _ = written("llama", **{"target_modules": ["v_proj"]} | config)
    with pytest.raises(UnsupportedModel, match=named):
        match(read_adapter(directory), targets_of(oracle_of("llama").load().linears))
