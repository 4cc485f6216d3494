"""Writes GGUF files with the format's own package, and what transformers answers with the weights that they mean.

Types that the package cannot make are random blocks, which it decodes: all of their bits are used.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from text_generation_server.weights.gguf.directory import convert

SPREAD = 0.1
"""Standard deviation of weights in random blocks."""

_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
_FLOATS = {
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
}
"""Where in a block there is a float16: of scales, then of minima."""


def gguf_name(name: str) -> str:
    """What llama.cpp calls a tensor of transformers' Llama."""
    stem, _, kind = name.rpartition(".")
    if not stem.startswith("model.layers."):
        return f"{_NAMES[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{_NAMES[part]}.{kind}"


def interleaved(weight: NDArray[Any], dim: int) -> NDArray[Any]:
    """ggml's row order of q and k: within a head, the rotary halves take turns."""
    return weight.reshape(-1, 2, dim // 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def _halves(weight: NDArray[Any], dim: int) -> NDArray[Any]:
    return weight.reshape(-1, dim // 2, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def packed_gguf(kind_of: Callable[[str, int], str]) -> Callable[[Path, Path], Any]:
    """What makes a packed directory of a saved model by way of a file, and transformers' model with what it means.

    kind_of: the type for a matrix, by its name and number; float16 for rows that are not whole blocks.
    """

    def make(plain: Path, directory: Path) -> Any:
        config, random = AutoConfig.from_pretrained(plain), np.random.default_rng(3)
        rotates, dim = config.model_type == "llama", config.hidden_size // config.num_attention_heads
        file, tensors = directory.with_suffix(".gguf"), load_file(plain / "model.safetensors")
        writer = gguf.GGUFWriter(file, config.model_type)
        _describe(writer, config)
        for number, (name, tensor) in enumerate(sorted(tensors.items())):
            values = tensor.float().numpy()
            turned = rotates and values.ndim > 1 and ("q_proj" in name or "k_proj" in name)
            kind = (
                gguf.GGMLQuantizationType[kind_of(name, number)] if values.ndim > 1 else gguf.GGMLQuantizationType.F32
            )
            if values.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
                kind = gguf.GGMLQuantizationType.F16
            raw = stored(interleaved(values, dim) if turned else values, kind, random)
            writer.add_tensor(gguf_name(name), raw, raw_dtype=kind)
            meant = gguf.quants.dequantize(raw, kind).reshape(values.shape)
            tensors[name] = torch.from_numpy(_halves(meant, dim) if turned else meant)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        directory.mkdir()
        convert(file, directory, packed=True)
        means = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
        means.load_state_dict(tensors, strict=False)
        return means.eval()

    return make


def _describe(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["<unk>", "<s>", "</s>", "a", "b", "ab", *map(str, range(6, config.vocab_size))])
    writer.add_token_types([1] * config.vocab_size)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(config.bos_token_id)
    writer.add_eos_token_id(config.eos_token_id)
    writer.add_unk_token_id(0)


def stored(values: NDArray[Any], kind: gguf.GGMLQuantizationType, random: np.random.Generator) -> NDArray[Any]:
    """The bytes of each row: values as the package rounds them, or random blocks where it cannot."""
    if kind.name not in _FLOATS:
        return gguf.quants.quantize(np.ascontiguousarray(values), kind)
    numbers, length = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (values.size // numbers, length), dtype=np.uint8)

    def decoded(*floats: NDArray[Any]) -> NDArray[Any]:
        for at, column in zip(_FLOATS[kind.name], floats, strict=False):
            blocks[:, at : at + 2] = column.astype("<f2")[:, None].view(np.uint8)
        return gguf.quants.dequantize(blocks, kind)

    one, none = np.ones(len(blocks)), np.zeros(len(blocks))
    upper, lower = decoded(one, none), decoded(none, one)
    ratio = -upper.mean() / (lower.mean() or 1.0)
    sizes = random.uniform(0.5, 1.5, len(blocks)) * SPREAD / (upper + ratio * lower).std()
    decoded(sizes, sizes * ratio * random.uniform(0.5, 1.5, len(blocks)))
    return blocks.reshape(len(values), -1)
