"""A converted GGUF file is the model it was written from: weights bit for bit, configuration, what is refused."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from text_generation_server.errors import UnsupportedModel
from text_generation_server.weights.gguf import directory
from text_generation_server.weights.gguf.directory import convert

WriteGGUF = Callable[..., Path]
TinyModels = dict[str, PreTrainedModel]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "converted"
    path.mkdir()
    return path


def _expected(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    return {name: value for name, value in model.state_dict().items() if name not in tied}


def _requantized(value: torch.Tensor, quantization: str) -> torch.Tensor:
    kind = gguf.GGMLQuantizationType[quantization]
    if value.ndim == 1:
        return value
    return torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(value.numpy(), kind), kind))


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_the_converted_model_computes_the_same(
    write_gguf: WriteGGUF, tiny_models: TinyModels, target: Path, architecture: str
) -> None:
    convert(write_gguf(architecture), target)
    model = AutoModelForCausalLM.from_pretrained(target)
    assert type(model) is type(tiny_models[architecture])
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, tiny_models[architecture](ids).logits, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("quantization", "dtype"),
    [
        ("F32", torch.float32),
        ("F16", torch.float16),
        ("BF16", torch.bfloat16),
        ("Q8_0", torch.bfloat16),
        ("Q4_1", torch.bfloat16),
    ],
)
def test_every_tensor_is_the_decoded_one_rounded_once(
    write_gguf: WriteGGUF,
    tiny_models: TinyModels,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    quantization: str,
    dtype: torch.dtype,
) -> None:
    monkeypatch.setattr(directory, "_CHUNK", 1500)  # several chunks a tensor, the last one short
    written = convert(write_gguf(quantization=quantization), target)
    tensors = load_file(target / "model.safetensors")
    expected = _expected(tiny_models["llama"])
    assert tensors.keys() == expected.keys()
    for name, value in expected.items():
        # q and k were reordered by whole rows and a block lies in one row: quantizing first gives the same.
        assert torch.equal(tensors[name], _requantized(value, quantization).to(dtype)), name
    assert written == (target / "model.safetensors").stat().st_size
    assert json.loads((target / "config.json").read_text())["torch_dtype"] == str(dtype).removeprefix("torch.")


def test_the_configuration_is_readable_by_old_and_new_loaders(write_gguf: WriteGGUF, target: Path) -> None:
    convert(write_gguf(), target)
    config = json.loads((target / "config.json").read_text())
    assert config["rope_theta"] == 50000.0
    assert config["rms_norm_eps"] == 1e-6
    assert config["head_dim"] == 16
    assert config["tie_word_embeddings"] is True
    generation = json.loads((target / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 1, "eos_token_id": [2, 0], "pad_token_id": 2}


def test_the_tokenizer_is_readable_by_old_and_new_libraries(write_gguf: WriteGGUF, target: Path) -> None:
    """`tokenizers` before 0.20, which routers of TGI up to 2.2 are built with, reads merges as lines only."""
    convert(write_gguf(), target)
    merges = json.loads((target / "tokenizer.json").read_text())["model"]["merges"]
    assert merges[:2] == ["Ġ t", "h e"] and all(isinstance(merge, str) for merge in merges)


def _ends(target: Path) -> object:
    return json.loads((target / "generation_config.json").read_text())["eos_token_id"]


@pytest.mark.parametrize("role", ["eot", "eom", "fim_pad", "fim_rep", "fim_sep"])
def test_every_role_that_ends_does(write_gguf: WriteGGUF, target: Path, role: str) -> None:
    convert(write_gguf(edit=lambda writer: writer.add_uint32(f"tokenizer.ggml.{role}_token_id", 1)), target)
    assert _ends(target) == [2, 1, 0]


@pytest.mark.parametrize(
    "text", ["<|eot_id|>", "<end_of_turn>", "<|eom_id|>", "</s>", "<EOT>", "<|file_sep|>", "[PAD]"]
)
def test_a_token_that_ends_a_turn_is_known_by_its_text(write_gguf: WriteGGUF, target: Path, text: str) -> None:
    convert(write_gguf(named={5: text}), target)
    assert _ends(target) == [2, 0, 5]
    tokenizer = AutoTokenizer.from_pretrained(target)
    assert tokenizer.decode([5], skip_special_tokens=True) == "", "it is a control token, though listed as a normal one"
    assert tokenizer.tokenize(f"the{text}")[-1] == text


def test_a_file_without_an_end_says_so(write_gguf: WriteGGUF, target: Path) -> None:
    lines: list[str] = []
    plain = {"named": {0: "<|a|>", 2: "<|b|>"}, "without": ("tokenizer.ggml.eos_token_id",)}
    convert(write_gguf(**plain), target, lines.append)
    assert _ends(target) is None
    assert lines == ["model.gguf names no token that ends a text: answers end where they are as long as was asked for"]


def test_what_cannot_stay_packed_is_told(write_gguf: WriteGGUF, target: Path) -> None:
    lines: list[str] = []
    convert(write_gguf(quantization="Q8_0"), target, lines.append, packed=True)
    assert lines == []
    data = np.zeros((64, 66), np.uint8)
    add = lambda writer: writer.add_tensor("blk.0.attn_q.bias", data, raw_dtype=gguf.GGMLQuantizationType.TQ2_0)  # noqa: E731
    convert(write_gguf(edit=add), target, lines.append, packed=True)
    assert lines == ["model.gguf has matrices of types that cannot stay packed, and are made plain: TQ2_0"]


def test_linear_rope_scaling_is_kept(write_gguf: WriteGGUF, target: Path) -> None:
    def edit(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(4.0)

    convert(write_gguf(edit=edit), target)
    assert json.loads((target / "config.json").read_text())["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}


@pytest.mark.parametrize("key", ["rope.scaling.factor", "rope.scale_linear"])
def test_a_factor_without_a_type_is_linear(write_gguf: WriteGGUF, target: Path, key: str) -> None:
    convert(write_gguf(edit=lambda writer: writer.add_float32(f"llama.{key}", 4.0)), target)
    assert json.loads((target / "config.json").read_text())["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}


def test_yarn_is_kept(write_gguf: WriteGGUF, target: Path) -> None:
    def edit(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(32)
        writer.add_rope_scaling_yarn_beta_fast(16.0)

    convert(write_gguf(edit=edit), target)
    expected = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 16.0}
    assert json.loads((target / "config.json").read_text())["rope_scaling"] == expected


def test_what_changes_nothing_is_let_pass(write_gguf: WriteGGUF, target: Path) -> None:
    def edit(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_dimension_count(16)
        writer.add_value_length(16)
        writer.add_expert_count(0)
        writer.add_causal_attention(True)
        writer.add_rope_scaling_attn_factors(1.0)
        writer.add_type("model")
        writer.add_file_type(7)
        writer.add_mask_token_id(1)
        writer.add_string("quantize.imatrix.file", "x")
        writer.add_string("some_shop.note", "x")

    lines: list[str] = []
    convert(write_gguf(edit=edit), target, lines.append)
    assert lines == ["model.gguf has metadata that nothing here reads: some_shop.note"]


def test_llama3_rope_factors_become_rope_scaling(write_gguf: WriteGGUF, target: Path) -> None:
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    plain = 50000.0 ** -(torch.arange(8) / 8)
    factors = (plain / _scaled_frequencies(scaling)).numpy().astype(np.float32)
    assert factors.max() == 8.0
    convert(write_gguf(edit=lambda writer: writer.add_tensor("rope_freqs.weight", factors)), target)
    assert json.loads((target / "config.json").read_text())["rope_scaling"] == scaling


def _scaled_frequencies(scaling: dict[str, Any]) -> torch.Tensor:
    config = LlamaConfig(head_dim=16, rope_parameters={"rope_theta": 50000.0, **scaling})
    frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    return torch.as_tensor(frequencies)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"architecture": "mamba"}, "general.architecture is 'mamba', expected one of llama, qwen2"),
        ({"edit": lambda writer: writer.add_expert_count(8)}, "llama.expert_count is 8"),
        (
            {"edit": lambda writer: writer.add_string("llama.rope.scaling.type", "longrope")},
            "scaling.type is 'longrope'",
        ),
        ({"edit": lambda writer: writer.add_tensor("blk.0.extra.weight", np.zeros(4, "f4"))}, "blk.0.extra.weight"),
        ({"edit": lambda writer: writer.add_tensor("stray", np.zeros(4, "f4"))}, "no place for the tensors stray"),
        (
            {"edit": lambda writer: writer.add_tensor("rope_freqs.weight", np.arange(1, 9, dtype="f4"))},
            "rope_freqs.weight is not Llama 3.1's",
        ),
        ({"edit": lambda writer: writer.add_tensor("blk.0", np.zeros(4, "f4"))}, "no place for the tensors blk.0"),
        ({"edit": lambda writer: writer.add_eot_token_id(5000)}, "eot_token_id is 5000"),
        ({"edit": lambda writer: writer.add_key_length(15)}, "4 heads of 15 numbers do not make the 64 rows"),
        ({"pre": "deepseek-llm"}, "tokenizer.ggml.pre is 'deepseek-llm'"),
    ],
    ids=[
        "architecture",
        "experts",
        "longrope",
        "layer-tensor",
        "tensor",
        "rope-factors",
        "layer",
        "token-id",
        "heads",
        "pre-tokenizer",
    ],
)
def test_what_would_be_lost_is_refused_by_name(
    write_gguf: WriteGGUF, target: Path, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UnsupportedModel, match=reason.replace(".", r"\.")):
        convert(write_gguf(**options), target)


@pytest.mark.parametrize(
    ("kind", "key", "value", "expected"),
    [
        ("float32", "llama.attention.scale", 0.5, "a model without it"),
        ("uint32", "llama.attention.sliding_window", 64, "0"),
        ("float32", "llama.final_logit_softcapping", 30.0, "0"),
        ("float32", "llama.attn_logit_softcapping", 50.0, "0"),
        ("float32", "llama.logit_scale", 0.25, "0 or 1"),
        ("float32", "llama.residual_scale", 0.25, "0 or 1"),
        ("float32", "llama.embedding_scale", 12.0, "0 or 1"),
        ("float32", "llama.rope.scaling.attn_factor", 1.5, "1"),
        ("float32", "llama.rope.scaling.yarn_log_multiplier", 0.5, "0"),
        ("uint32", "llama.rope.dimension_count", 8, "16, the size of a head"),
        ("uint32", "llama.attention.value_length", 8, "16, the size of a head"),
        ("uint32", "llama.pooling_type", 1, "0"),
        ("bool", "llama.attention.causal", False, "True"),
        ("uint32", "llama.something.new", 1, "a model without it"),
        ("bool", "tokenizer.ggml.add_sep_token", True, "False"),
        ("bool", "tokenizer.ggml.normalizer.lowercase", True, "a model without it"),
        ("string", "tokenizer.rwkv.world", "x", "a model without it"),
        ("string", "general.type", "adapter", "'model'"),
        ("string", "adapter.type", "lora", "a model without it"),
        ("string", "tokenizer.ggml.add_bos_token", "yes", "true or false"),
        ("float32", "tokenizer.ggml.eot_token_id", 1.5, "a whole number"),
    ],
)
def test_metadata_that_would_be_lost_is_refused_by_key(
    write_gguf: WriteGGUF, target: Path, kind: str, key: str, value: object, expected: str
) -> None:
    path = write_gguf(edit=lambda writer: getattr(writer, f"add_{kind}")(key, value))
    with pytest.raises(UnsupportedModel, match=f"{re.escape(key)} is {re.escape(repr(value))}, .*expected {expected}$"):
        convert(path, target)


def test_lists_of_other_lengths_are_refused(write_gguf: WriteGGUF, target: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"tokenizer\.ggml\.scores has 2 entries for 265 tokens"):
        convert(write_gguf(edit=lambda writer: writer.add_token_scores([0.0, 1.0])), target)


def test_a_pointer_is_called_that(tmp_path: Path, target: Path) -> None:
    (tmp_path / "x.gguf").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(UnsupportedModel, match=r"x\.gguf is a Git LFS pointer"):
        convert(tmp_path / "x.gguf", target)
