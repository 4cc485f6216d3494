"""Writes tiny GGUF files with the format's own package, so that the reader is tested against another hand."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gguf
import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from oracles.gguf_files import gguf_name, interleaved

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["Ġ t", "h e", "Ġt he", "Ġ Ġ", "a n", "an d"]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"

WriteGGUF = Callable[..., Path]

_SIZES: dict[str, Any] = {
    "vocab_size": len(CONTROL) + 256 + len(MERGES),
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rope_theta": 50000.0,
}


@pytest.fixture(scope="session")
def tiny_models() -> dict[str, PreTrainedModel]:
    """Random models by GGUF architecture: a tied Llama, and a Qwen2 with biases and its own head."""
    torch.manual_seed(0)
    models = {
        "llama": LlamaForCausalLM(LlamaConfig(**_SIZES, tie_word_embeddings=True)),
        "qwen2": Qwen2ForCausalLM(Qwen2Config(**_SIZES, tie_word_embeddings=False)),
    }
    for model in models.values():
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return models


@pytest.fixture
def write_gguf(tmp_path: Path, tiny_models: dict[str, PreTrainedModel]) -> WriteGGUF:
    """Writes `model.gguf`; keyword arguments replace parts of it: named, texts of tokens; without, keys."""

    def write(
        architecture: str = "llama",
        quantization: str = "F32",
        pre: str = "smollm",
        edit: Callable[[gguf.GGUFWriter], None] = lambda writer: None,
        name: str = "model.gguf",
        named: Mapping[int, str] = MappingProxyType({}),
        without: Sequence[str] = (),
    ) -> Path:
        path = tmp_path / name
        writer = gguf.GGUFWriter(path, architecture)
        _add_sizes(writer)
        _add_tokenizer(writer, pre, named)
        edit(writer)
        for key in without:
            del writer.kv_data[0][key]
        if architecture in tiny_models:
            _add_tensors(writer, tiny_models[architecture], gguf.GGMLQuantizationType[quantization])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


def _add_sizes(writer: gguf.GGUFWriter) -> None:
    writer.add_block_count(_SIZES["num_hidden_layers"])
    writer.add_context_length(_SIZES["max_position_embeddings"])
    writer.add_embedding_length(_SIZES["hidden_size"])
    writer.add_feed_forward_length(_SIZES["intermediate_size"])
    writer.add_head_count(_SIZES["num_attention_heads"])
    writer.add_head_count_kv(_SIZES["num_key_value_heads"])
    writer.add_rope_freq_base(_SIZES["rope_theta"])
    writer.add_layer_norm_rms_eps(1e-6)


def _add_tokenizer(writer: gguf.GGUFWriter, pre: str, named: Mapping[int, str]) -> None:
    tokens = [*CONTROL, *sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]
    tokens = [named.get(number, token) for number, token in enumerate(tokens)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(CONTROL) + [1] * (len(tokens) - len(CONTROL)))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(TEMPLATE)


def _add_tensors(writer: gguf.GGUFWriter, model: PreTrainedModel, kind: gguf.GGMLQuantizationType) -> None:
    tied = model.config.tie_word_embeddings
    for name, value in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        numbers = value.float().numpy()
        if model.config.model_type == "llama" and ("q_proj" in name or "k_proj" in name):
            numbers = interleaved(numbers, model.config.head_dim)
        # Norms and biases stay float32 in every GGUF file.
        stored = kind if numbers.ndim > 1 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(gguf_name(name), gguf.quants.quantize(numbers, stored), raw_dtype=stored)
