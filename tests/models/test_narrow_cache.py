"""Keys and values of 8 bits: what transformers answers in float32 with keys and values that the test itself rounds."""

import json
import shutil
from dataclasses import replace
from inspect import signature

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, DynamicCache

from oracles.build import build
from oracles.driver import Driver, source_of
from oracles.generic import SERVED
from oracles.ranks import Asked, answers_of
from text_generation_server.cache.states import bytes_per_slot
from text_generation_server.choices import KvCacheDtype
from text_generation_server.distributed.group import SingleRank
from text_generation_server.errors import UnsupportedModel
from text_generation_server.models import kv_form
from text_generation_server.models.kv_form import narrow_type
from text_generation_server.models.loading import ModelOptions, load_model

FLOAT32 = ModelOptions(torch.float32, torch.device("cpu"))
E4M3, E5M2 = KvCacheDtype.FP8_E4M3FN, KvCacheDtype.FP8_E5M2
LIMITS = {E4M3: (3, -6, 448.0), E5M2: (2, -14, 57344.0)}
"""Bits behind the point, the least exponent, the largest number."""

CASES = {
    "llama": E4M3, "gemma2": E5M2, "mistral": E4M3, "qwen3": E4M3, "gpt_neox": E5M2, "mpt": E4M3, "phi3": E5M2,
}  # fmt: skip
SCHEME = {"type": "float", "num_bits": 8, "strategy": "tensor", "dynamic": False, "symmetric": True}


def rounded(x, dtype, scale=1.0):
    """The nearest numbers of the type, even ones of two, times the scale."""
    bits, least, most = LIMITS[dtype]
    x = x.double() / scale
    step = torch.exp2(x.abs().clamp(min=1e-300).log2().floor().clamp(min=least) - bits)
    return ((x / step).round() * step).clamp(-most, most).mul(scale).float()


class RoundingCache(DynamicCache):
    """Rounds what models put into it; scales: of keys and of values, for each layer."""

    def __init__(self, dtype, scales):
        super().__init__()
        self.dtype, self.scales = dtype, scales

    def update(self, keys, values, layer, *args, **kwargs):
        of_keys, of_values = self.scales[layer]
        return super().update(rounded(keys, self.dtype, of_keys), rounded(values, self.dtype, of_values), layer, *args)


@torch.inference_mode()
def expected_of(directory, sequences, dtype, scales=((1.0, 1.0),) * 8):
    """Logits after each position of each sequence."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
    name = next(name for name in ("cache", "past_key_values") if name in signature(model.forward).parameters)
    return [
        model(torch.tensor([ids]), **{name: RoundingCache(dtype, scales)}, use_cache=True).logits[0]
        for ids in sequences
    ]


def loaded(directory, dtype, **options):
    asked = replace(FLOAT32, kv_cache_dtype=dtype, **options)
    return load_model(directory, asked, SingleRank(), lambda _done, _total: None)


def assert_near(got, expected, plain):
    """Nearly everywhere the errors are far less than what rounding does to the plain model's answers.

    A number at the border of two may be rounded to the other one, which all later positions of its sequence then see.
    """
    got, expected, plain = (torch.cat(list(rows)) for rows in (got, expected, plain))
    wrong, change = (got - expected).std(-1), (plain - expected).std(-1)
    assert (wrong < change / 30).float().mean() > 0.7 and wrong.mean() < change.mean() / 4


@pytest.mark.parametrize(("oracle", "dtype"), CASES.items(), indirect=["oracle"])
def test_answers_are_those_of_rounded_keys_and_values(oracle, dtype):
    driver = Driver(loaded(oracle.directory, dtype), oracle.reference.spans)
    got = driver.follow(oracle.reference.sequences, 6)
    assert_near(got, expected_of(oracle.directory, oracle.reference.sequences, dtype), oracle.reference.logits)


@pytest.mark.parametrize("oracle", ["llama", "gemma2"], indirect=True)
def test_chunks_change_nothing(oracle):
    """A chunk's own keys are read as the cache holds them, and so as later chunks do."""
    model, ids = loaded(oracle.directory, E4M3), oracle.reference.sequences[1]
    (whole,) = Driver(model).step([(0, ids)])
    driver = Driver(model)
    chunks = [driver.step([(0, ids[at : at + 6])])[0] for at in range(0, len(ids), 6)]
    torch.testing.assert_close(torch.cat(chunks), whole, atol=oracle.case.tolerance, rtol=0.0)


@pytest.mark.parametrize("oracle", ["llama"], indirect=True)
def test_a_token_at_a_time_is_the_same(oracle):
    model = loaded(oracle.directory, E4M3, deterministic=True)
    (got,) = Driver(model).step([(0, oracle.reference.sequences[1])])
    (whole,) = Driver(loaded(oracle.directory, E4M3)).step([(0, oracle.reference.sequences[1])])
    torch.testing.assert_close(got, whole, atol=oracle.case.tolerance, rtol=0.0)


@pytest.mark.parametrize("oracle", ["t5"], indirect=True)
def test_an_encoder_reads_through_the_same_cache(oracle):
    """Keys and values of self-attention and of cross-attention, as the linears make them."""
    model = AutoModelForSeq2SeqLM.from_pretrained(oracle.directory, dtype=torch.float32, attn_implementation="eager")
    for name, module in model.named_modules():
        if name.endswith(("Attention.k", "Attention.v")):
            module.register_forward_hook(lambda _module, _input, output: rounded(output, E4M3))
    with torch.inference_mode():
        expected = [
            model(torch.tensor([source_of(row)]), decoder_input_ids=torch.tensor([ids])).logits[0]
            for row, ids in enumerate(oracle.reference.sequences)
        ]
    got = Driver(loaded(oracle.directory, E4M3), oracle.reference.spans).follow(oracle.reference.sequences, 6)
    assert_near(got, expected, oracle.reference.logits)


@pytest.mark.parametrize("oracle", ["granite-hybrid"], indirect=True)
def test_a_hybrid_has_it_in_its_layers_with_attention(oracle):
    """Whose keys are not rotated: they are as the linears make them."""
    model = AutoModelForCausalLM.from_pretrained(oracle.directory, dtype=torch.float32, attn_implementation="eager")
    for name, module in model.named_modules():
        if name.endswith(("self_attn.k_proj", "self_attn.v_proj")):
            module.register_forward_hook(lambda _module, _input, output: rounded(output, E4M3))
    with torch.inference_mode():
        expected = [model(torch.tensor([ids]), use_cache=False).logits[0] for ids in oracle.reference.sequences]
    served = loaded(oracle.directory, E4M3)
    kept = bytes_per_slot(loaded(oracle.directory, KvCacheDtype.AUTO).states)
    assert 4 * bytes_per_slot(served.states) == kept
    got = Driver(served, oracle.reference.spans).follow(oracle.reference.sequences, 6)
    assert_near(got, expected, oracle.reference.logits)


def with_scales(oracle, folder, names, scales, **config):
    """The model with tensors of scales, `names` of keys' and values', and more in its config."""
    shutil.copytree(oracle.directory, folder, dirs_exist_ok=True)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | config))
    tensors = load_file(folder / "model.safetensors")
    for layer, pair in enumerate(scales):
        for name, scale in zip(names, pair, strict=True):
            tensors[f"model.layers.{layer}.self_attn.{name}"] = torch.tensor([scale])
    save_file(tensors, folder / "model.safetensors")
    return folder


SCALES = (0.01, 0.3), (0.07, 0.02)
"""With which many a key is beyond the range."""

NAMES = {
    "compressed-tensors": ("k_scale", "v_scale"),
    "older": ("k_proj.output_scale", "v_proj.output_scale"),
    "ModelOpt": ("k_proj.k_scale", "v_proj.v_scale"),
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("oracle", ["llama"], indirect=True)
def test_scales_are_the_checkpoints(oracle, names, tmp_path):
    """By its scheme alone; without one, scales are passed over."""
    section = {"quant_method": "compressed-tensors", "config_groups": {}, "kv_cache_scheme": SCHEME}
    directory = with_scales(oracle, tmp_path, names, SCALES, quantization_config=section)
    got = Driver(loaded(directory, KvCacheDtype.AUTO), oracle.reference.spans).follow(oracle.reference.sequences, 6)
    assert_near(got, expected_of(oracle.directory, oracle.reference.sequences, E4M3, SCALES), oracle.reference.logits)


@pytest.mark.parametrize("oracle", ["llama"], indirect=True)
def test_one_scale_may_be_for_keys_and_values(oracle, tmp_path):
    directory = with_scales(oracle, tmp_path, ("kv_scale",), [(key,) for key, _ in SCALES])
    got = Driver(loaded(directory, E5M2), oracle.reference.spans).follow(oracle.reference.sequences, 6)
    assert_near(
        got,
        expected_of(oracle.directory, oracle.reference.sequences, E5M2, [(key, key) for key, _ in SCALES]),
        oracle.reference.logits,
    )
    (plain,) = Driver(loaded(directory, KvCacheDtype.AUTO)).step([(0, oracle.reference.sequences[1])])
    torch.testing.assert_close(plain, oracle.reference.logits[1], atol=oracle.case.tolerance, rtol=0.0)


@pytest.mark.parametrize("oracle", ["llama"], indirect=True)
def test_modelopt_may_leave_weights_as_they_are(oracle, tmp_path):
    section = {"quantization": {"quant_algo": None, "kv_cache_quant_algo": "FP8"}}
    directory = with_scales(oracle, tmp_path, NAMES["ModelOpt"], SCALES)
    (directory / "hf_quant_config.json").write_text(json.dumps(section))
    got = Driver(loaded(directory, KvCacheDtype.AUTO), oracle.reference.spans).follow(oracle.reference.sequences, 6)
    expected = expected_of(directory, oracle.reference.sequences, E4M3, SCALES)
    assert_near(got, expected, oracle.reference.logits)


@pytest.mark.parametrize("scale", [0.0, float("nan"), -1.0])
@pytest.mark.parametrize("oracle", ["llama"], indirect=True)
def test_a_scale_that_is_none_is_named(oracle, tmp_path, scale):
    directory = with_scales(oracle, tmp_path, ("k_scale", "v_scale"), [(1.0, scale)] * 2)
    with pytest.raises(UnsupportedModel, match=r"layers.\d.self_attn.v_scale is .*, expected a number above 0"):
        loaded(directory, E4M3)


@pytest.mark.parametrize("oracle", ["llama"], indirect=True)
def test_ranks_hold_their_heads_in_8_bits(oracle, tmp_path):
    section = {"quant_method": "compressed-tensors", "config_groups": {}, "kv_cache_scheme": SCHEME}
    directory = with_scales(oracle, tmp_path / "model", ("k_scale", "v_scale"), SCALES, quantization_config=section)
    asked = {"model": Asked(directory, oracle.reference.sequences)}
    expected = expected_of(oracle.directory, oracle.reference.sequences, E4M3, SCALES)
    for rank in answers_of(2, asked, 4, tmp_path):
        assert_near(rank.models["model"], expected, oracle.reference.logits)


def test_a_model_through_transformers_has_it_too(tmp_path):
    reference = build(SERVED[0], tmp_path)
    got = Driver(loaded(tmp_path, E4M3), reference.spans).follow(reference.sequences, 6)
    assert_near(got, expected_of(tmp_path, reference.sequences, E4M3), reference.logits)


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
@pytest.mark.parametrize("oracle", ["llama"], indirect=True)
def test_a_token_takes_half_of_what_16_bits_take(oracle, dtype):
    bfloat16 = replace(FLOAT32, dtype=torch.bfloat16)
    sizes = [bytes_per_slot(oracle.load(replace(bfloat16, kv_cache_dtype=asked)).states) for asked in ("auto", dtype)]
    assert sizes[0] == 2 * sizes[1]


@pytest.mark.parametrize("oracle", ["mamba"], indirect=True)
def test_what_keeps_no_keys_is_refused(oracle):
    with pytest.raises(UnsupportedModel, match="--kv-cache-dtype fp8_e5m2 is for models with attention"):
        loaded(oracle.directory, E5M2)


def test_older_gpus_have_one_of_the_types(monkeypatch):
    monkeypatch.setattr(kv_form.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(kv_form.torch.cuda, "get_device_capability", lambda _device: (8, 0))
    assert narrow_type(E5M2, None, torch.device("cuda")) is torch.float8_e5m2
    with pytest.raises(UnsupportedModel, match=r"fp8_e4m3fn need a GPU .* use --kv-cache-dtype fp8_e5m2"):
        narrow_type(KvCacheDtype.FP8_E4M3, None, torch.device("cuda"))
