"""Quantised checkpoints in every layout answer as transformers does with the weights that they stand for."""

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from oracles.driver import Driver
from oracles.fp4 import is_experts, mxfp4, nvfp4, stacked
from oracles.gguf_files import packed_gguf
from oracles.lora import place, save_adapter
from oracles.quantised import (
    QuantisedModel,
    awq,
    gptq,
    in_bytes,
    int8_rows,
    nearest,
    of_table,
    packed,
    plainly,
    quantise,
)
from oracles.ranks import Asked, answers_of
from text_generation_server.adapters.targets import targets_of
from text_generation_server.distributed.group import SingleRank
from text_generation_server.errors import UnsupportedModel
from text_generation_server.models.loading import ModelOptions, load_model

NF4 = [
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
]
"""As QLoRA's appendix lists them."""
FP4 = [sign * n / 12 for sign in (1, -1) for n in (0, 0.0625, 8, 12, 4, 6, 2, 3)]
"""In the order of bitsandbytes' codes."""
SIZES = {
    "vocab_size": 97,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
LLAMA = {**SIZES, "num_key_value_heads": 2, "intermediate_size": 168, "max_position_embeddings": 128}
MODELS = {
    "llama": {"model_type": "llama", **LLAMA, "vocab_size": 104, "intermediate_size": 160},
    "tied": {"model_type": "qwen2", **LLAMA, "tie_word_embeddings": True},
    "wide": {"model_type": "llama", **LLAMA, "vocab_size": 104, "hidden_size": 256, "intermediate_size": 512},
    "fused": {"model_type": "phi3", **LLAMA, "num_key_value_heads": 4},
    "grouped": {"model_type": "gpt_neox", **SIZES, "intermediate_size": 168, "max_position_embeddings": 128},
    "interleaved": {
        "model_type": "gptj",
        "vocab_size": 97,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 4,
        "rotary_dim": 8,
    },
    "experts": {
        "model_type": "qwen3_moe",
        **LLAMA,
        "head_dim": 16,
        "moe_intermediate_size": 80,
        "num_experts": 6,
        "num_experts_per_tok": 2,
    },
    "gpt_oss": {
        "model_type": "gpt_oss",
        **LLAMA,
        "head_dim": 16,
        "intermediate_size": 96,
        "sliding_window": 9,
        "num_local_experts": 5,
        "num_experts_per_tok": 2,
    },
}

FLOAT8 = torch.float8_e4m3fn
"""Models that are not in all of some formats: the one that is in each, and the one whose experts lie in one tensor."""


def compressed(form, **weights):
    """A quantization_config of compressed-tensors."""
    inputs = weights.pop("inputs", None)
    group = {
        "targets": ["Linear"],
        "weights": {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", **weights},
        "input_activations": inputs,
    }
    ignore = ["lm_head"]
    return {"quant_method": "compressed-tensors", "format": form, "config_groups": {"group_0": group}, "ignore": ignore}


def dynamic(kind):
    """Inputs that are rounded as they come."""
    return {"inputs": {"num_bits": 8, "type": kind, "dynamic": True, "strategy": "token"}}


def bitsandbytes(**values):
    """A quantization_config of bitsandbytes', as transformers saves it."""
    usual = {
        "load_in_4bit": True,
        "load_in_8bit": False,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_compute_dtype": "float32",
    }
    return {"quant_method": "bitsandbytes", **usual, "llm_int8_skip_modules": ["lm_head"], **values}


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}
FORMATS = {
    "gptq": QuantisedModel(gptq(), GPTQ),
    "gptq-act-order": QuantisedModel(gptq(act_order=True), {**GPTQ, "desc_act": True}),
    "gptq-2": QuantisedModel(
        gptq(2, 16, version=2), {**GPTQ, "bits": 2, "group_size": 16, "checkpoint_format": "gptq_v2"}
    ),
    "gptq-3": QuantisedModel(gptq(3, -1), {"bits": 3, "group_size": -1}, "quantize_config.json"),
    "gptq-8": QuantisedModel(gptq(8, 32, symmetric=True, bare=True), {**GPTQ, "bits": 8}),
    "awq": QuantisedModel(awq(), AWQ),
    "awq-16": QuantisedModel(awq(16), {"w_bit": 4, "q_group_size": 16}, "quant_config.json"),
    "packed": QuantisedModel(packed(), compressed("pack-quantized", group_size=32)),
    "packed-zeros": QuantisedModel(
        packed(8, 16, symmetric=False), compressed("pack-quantized", num_bits=8, group_size=16, symmetric=False)
    ),
    "packed-order": QuantisedModel(
        packed(symmetric=False, act_order=True),
        compressed("pack-quantized", group_size=32, symmetric=False, actorder="group"),
    ),
    "packed-outputs": QuantisedModel(packed(8, -1), compressed("pack-quantized", num_bits=8, strategy="channel")),
    "int8": QuantisedModel(
        in_bytes(torch.int8, (1, 0)), compressed("int-quantized", num_bits=8, strategy="channel", **dynamic("int"))
    ),
    "modelopt": QuantisedModel(
        in_bytes(FLOAT8, (0, 0), shape=()),
        {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "exclude_modules": ["lm_head"]}},
        "hf_quant_config.json",
    ),
    "float8": QuantisedModel(
        in_bytes(FLOAT8, (0, 0), shape=(1,)),
        compressed("float-quantized", num_bits=8, type="float", strategy="tensor", **dynamic("float")),
    ),
    "fp8": QuantisedModel(
        in_bytes(FLOAT8, (0, 0), shape=(1,)), {"quant_method": "fp8", "activation_scheme": "dynamic"}
    ),
    "nf4": QuantisedModel(of_table("nf4", NF4), bitsandbytes()),
    "nf4-wide": QuantisedModel(
        of_table("nf4", NF4, storage=torch.bfloat16), bitsandbytes(bnb_4bit_quant_storage="bfloat16")
    ),
    "fp4-nested": QuantisedModel(
        of_table("fp4", FP4, nested=True), bitsandbytes(bnb_4bit_quant_type="fp4", bnb_4bit_use_double_quant=True)
    ),
    "bnb-int8": QuantisedModel(int8_rows(), bitsandbytes(load_in_4bit=False, load_in_8bit=True)),
    "fp8-blocks": QuantisedModel(
        in_bytes(FLOAT8, (32, 16), "weight_scale_inv"), {"quant_method": "fp8", "weight_block_size": [32, 16]}
    ),
    "mxfp4": QuantisedModel(
        stacked(mxfp4("_blocks", "_scales", blocks=True)),
        {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]},
        chosen=is_experts,
    ),
    "mxfp4-packed": QuantisedModel(
        mxfp4(), compressed("mxfp4-pack-quantized", type="float", group_size=32, scale_dtype="torch.uint8")
    ),
    "nvfp4": QuantisedModel(
        nvfp4(), compressed("nvfp4-pack-quantized", type="float", strategy="tensor_group", group_size=16)
    ),
    "nvfp4-modelopt": QuantisedModel(
        nvfp4("weight", "weight_scale_2", divides=False),
        {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]},
    ),
}
SMALL_BLOCKS, LARGE_BLOCKS = (
    ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL"],
    ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"],
)
GGUF = {
    "gguf-small": packed_gguf(lambda _, number: SMALL_BLOCKS[number % 6]),
    "gguf-large": packed_gguf(lambda _, number: LARGE_BLOCKS[number % 6]),
    "gguf-q4_k_m": packed_gguf(lambda name, _: "Q6_K" if re.search("v_proj|down_proj|lm_head", name) else "Q4_K"),
}
MADE = {
    "eetq": plainly(in_bytes(torch.int8, (1, 0))),
    "bitsandbytes": plainly(in_bytes(torch.int8, (1, 0))),
    "fp8": plainly(in_bytes(FLOAT8, (1, 0))),
    "bitsandbytes-nf4": nearest(NF4),
    "bitsandbytes-fp4": nearest(FP4),
}
LAYOUTS = ("tied", "fused", "grouped", "interleaved", "experts")
OTHERS = [
    ("tied", "packed"),
    *((model, form) for model in LAYOUTS for form in ("gptq-act-order", "awq", "fp8-blocks")),
    ("experts", "nf4"),
    ("interleaved", "nf4"),
    ("gpt_oss", "mxfp4"),
    ("experts", "nvfp4-modelopt"),
]
FILES = [("llama", "gguf-small"), ("tied", "gguf-small"), ("wide", "gguf-large"), ("wide", "gguf-q4_k_m")]
CASES = [*(("llama", form) for form in FORMATS if form != "mxfp4"), *OTHERS, *FILES]
RANKED = [
    *(("llama", form) for form in ("gptq", "gptq-3", "packed-order", "packed-zeros", "nvfp4", "int8", "float8")),
    *(("llama", form) for form in ("nf4", "fp4-nested", "bnb-int8")),
    *OTHERS,
    *FILES,
]
SEQUENCE = torch.randint(97, (40,), generator=torch.Generator().manual_seed(0)).tolist()
DECODED = 4
FLOAT32 = ModelOptions(torch.float32, torch.device("cpu"))
TOLERANCE = {"atol": 1e-4, "rtol": 0.0}


@pytest.fixture(scope="module")
def plain_of(tmp_path_factory):
    """Directories of plain models."""
    made: dict[str, Path] = {}

    def plain(name):
        if name not in made:
            torch.manual_seed(1)
            values = dict(MODELS[name])
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(values.pop("model_type"), **values))
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, 1.0 if parameter.dim() == 1 else 0.0, 0.2)
            made[name] = tmp_path_factory.mktemp("plain") / name
            model.save_pretrained(made[name])
        return made[name]

    return plain


@pytest.fixture(scope="module")
def quantised_of(plain_of, tmp_path_factory):
    """Directories of quantised models, and the logits that their weights give [T, vocab]."""
    made = {}

    def quantised(model, form):
        if (model, form) not in made:
            directory = tmp_path_factory.mktemp("quantised") / f"{model}-{form}"
            make = GGUF.get(form) or partial(quantise, model=FORMATS[form])
            means = make(plain_of(model), directory)
            with torch.inference_mode():
                made[model, form] = directory, means(torch.tensor([SEQUENCE]), use_cache=False).logits[0]
        return made[model, form]

    return quantised


def load(directory, options=FLOAT32):
    return load_model(directory, options, SingleRank(), lambda _done, _total: None)


@pytest.mark.parametrize(("model", "form"), CASES, ids=str)
def test_a_quantised_model_is_the_one_that_its_weights_stand_for(quantised_of, model, form):
    directory, expected = quantised_of(model, form)
    (logits,) = Driver(load(directory), [64]).follow([SEQUENCE], DECODED)
    torch.testing.assert_close(logits, expected, **TOLERANCE)


@pytest.fixture(scope="module", params=[2, 4])
def world(request, quantised_of, tmp_path_factory):
    """What each of so many ranks answers; one group of processes computes all cases."""
    models = {"-".join(case): Asked(quantised_of(*case)[0], [SEQUENCE]) for case in RANKED}
    return answers_of(request.param, models, DECODED, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize(("model", "form"), RANKED, ids=str)
def test_each_rank_has_the_whole_answer(quantised_of, world, model, form):
    for rank in world:
        torch.testing.assert_close(rank.models[f"{model}-{form}"][0], quantised_of(model, form)[1], **TOLERANCE)


@pytest.mark.parametrize("asked", MADE)
def test_plain_weights_are_made_into_what_is_asked_for(plain_of, tmp_path, asked):
    means = quantise(plain_of("tied"), tmp_path / "model", QuantisedModel(MADE[asked], {}))
    with torch.inference_mode():
        expected = means(torch.tensor([SEQUENCE])).logits[0]
    model = load(tmp_path / "model", replace(FLOAT32, quantize=asked))
    torch.testing.assert_close(Driver(model).step([(0, SEQUENCE)])[0], expected, **TOLERANCE)


def test_linears_that_were_left_plain_are_read_as_such(plain_of, tmp_path):
    """Queries plain beside quantised keys and values, in one projection; some linears have a bias of zeros."""
    kept = lambda name: "q_proj" in name or "layers.1.mlp" in name  # noqa: E731
    means = quantise(plain_of("llama"), tmp_path / "model", FORMATS["gptq-act-order"], kept)
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    biases = {n.replace("qweight", "bias"): torch.zeros(t.shape[1]) for n, t in tensors.items() if "qweight" in n}
    save_file(tensors | biases, tmp_path / "model" / "model.safetensors")
    with torch.inference_mode():
        expected = means(torch.tensor([SEQUENCE])).logits[0]
    torch.testing.assert_close(Driver(load(tmp_path / "model")).step([(0, SEQUENCE)])[0], expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("model", "form"),
    [("llama", QuantisedModel(gptq(), {**GPTQ, "lm_head": True})), ("experts", FORMATS["nf4"])],
    ids=["gptq", "nf4"],
)
def test_heads_and_routers_may_be_quantised_too(plain_of, tmp_path, model, form):
    means = quantise(plain_of(model), tmp_path / "model", form, heads=True)
    with torch.inference_mode():
        expected = means(torch.tensor([SEQUENCE])).logits[0]
    torch.testing.assert_close(Driver(load(tmp_path / "model")).step([(0, SEQUENCE)])[0], expected, **TOLERANCE)


def test_the_oldest_files_say_what_they_are_in_tensors(plain_of, tmp_path):
    means = quantise(plain_of("llama"), tmp_path / "model", FORMATS["gptq"])
    file = tmp_path / "model" / "model.safetensors"
    save_file(load_file(file) | {"gptq_bits": torch.tensor([4]), "gptq_groupsize": torch.tensor([32])}, file)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    del config["quantization_config"]
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with torch.inference_mode():
        expected = means(torch.tensor([SEQUENCE])).logits[0]
    torch.testing.assert_close(Driver(load(tmp_path / "model")).step([(0, SEQUENCE)])[0], expected, **TOLERANCE)


def test_adapters_add_to_quantised_linears(quantised_of, tmp_path):
    model, plain = (load(quantised_of("llama", "gptq")[0]) for _ in range(2))
    save_adapter(tmp_path / "law", targets_of(model.linears).shapes, rank=2, seed=0)
    place(model, [tmp_path / "law"])
    work = [(0, SEQUENCE[:9]), (1, SEQUENCE[:9])]
    without, with_one = Driver(model, adapters=[0, 1, 0, 0]).step(work)
    torch.testing.assert_close(without, Driver(plain).step(work)[0], **TOLERANCE)
    assert (without - with_one).abs().max() > 0.05


def test_bfloat16_is_float32_up_to_rounding(quantised_of):
    directory, expected = quantised_of("llama", "gptq")
    (logits,) = Driver(load(directory, replace(FLOAT32, dtype=torch.bfloat16))).step([(0, SEQUENCE)])
    assert (logits.float() - expected).std() < 0.1 * expected.std()


@pytest.mark.parametrize(
    ("asked", "config", "reason"),
    [
        (None, {"compression_config": {"format": "pack-quantized"}}, "config_groups is None"),
        (None, compressed("marlin-24"), "format is 'marlin-24'"),
        (None, compressed("pack-quantized", num_bits=3, group_size=32), "num_bits is 3"),
        (None, compressed("pack-quantized"), "strategy is 'group', .* with a size"),
        (None, {**compressed("pack-quantized"), "kv_cache_scheme": {"num_bits": 8}}, "kv_cache_scheme is"),
        (None, {"quant_method": "fp8", "kv_cache_scheme": {"type": "float", "dynamic": True}}, "kv_cache_scheme is"),
        (None, {"quant_method": "fp8", "kv_cache_scheme": "dynamic"}, "kv_cache_scheme is 'dynamic'"),
        (None, {"quant_method": "fp8", "weight_block_size": [128]}, "weight_block_size is"),
        (None, {"quantization": {"group_size": 64, "bits": 4}}, "quantization is .*; this one is by MLX"),
        (None, bitsandbytes(load_in_4bit=False), "load_in_4bit is False, .* load_in_8bit, which is False too"),
        (None, bitsandbytes(bnb_4bit_quant_type="nf3"), "bnb_4bit_quant_type is 'nf3', .* one of fp4, nf4"),
        (None, bitsandbytes(bnb_4bit_quant_storage="int4"), "bnb_4bit_quant_storage is 'int4'"),
        ("bitsandbytes-fp4", bitsandbytes(), "--quantize is bitsandbytes-fp4, but .* by bitsandbytes"),
        ("gguf", None, "--quantize gguf is for checkpoints that are quantised so"),
        ("awq", GPTQ, "--quantize is awq, but the checkpoint is quantised by gptq"),
        ("awq", None, "--quantize awq is for checkpoints that are quantised so, and config.json has no"),
        (None, {"quant_method": "aqlm"}, "quant_method is 'aqlm', which is not supported; expected one of awq, "),
        (None, {"quant_algo": "W4A8_AWQ"}, "quant_algo is 'W4A8_AWQ'"),
        (None, {"bits": 4}, "quantization_config is .*; expected quant_method in it"),
        (None, {**GPTQ, "bits": 5}, "bits is 5, .* one of 2, 3, 4, 8"),
        (None, {**GPTQ, "group_size": 0}, "group_size is 0"),
        (None, {**GPTQ, "checkpoint_format": "marlin"}, "checkpoint_format is 'marlin', .* one of gptq, gptq_v2"),
        (None, {**GPTQ, "dynamic": {"-:x": {}}}, "dynamic is"),
        (None, {**AWQ, "bits": 8}, "bits is 8"),
        (None, {**AWQ, "version": "marlin"}, "version is 'marlin'"),
    ],
)
def test_what_is_not_read_is_refused_by_name(plain_of, tmp_path, asked, config, reason):
    values = json.loads((plain_of("llama") / "config.json").read_text())
    if config is not None:
        values |= (
            config
            if any("quantization" in key or "compression" in key for key in config)
            else {"quantization_config": config}
        )
    (tmp_path / "config.json").write_text(json.dumps(values))
    save_file(load_file(plain_of("llama") / "model.safetensors"), tmp_path / "model.safetensors")
    with pytest.raises(UnsupportedModel, match=reason):
        load(tmp_path, replace(FLOAT32, quantize=asked))
