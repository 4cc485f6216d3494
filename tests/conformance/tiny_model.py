"""A model directory with random weights, small enough to load in no time: what a process is started with."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from conformance.made_tokenizers import EOS, byte_level

HIDDEN, INNER, HEADS, VOCAB_SIZE = 32, 64, 4, EOS + 1

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER,
    "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "num_hidden_layers": 1, "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": True,
    "eos_token_id": EOS,
}  # fmt: skip

_SHAPES = {
    "embed_tokens": (VOCAB_SIZE, HIDDEN),
    "norm": (HIDDEN,),
    "layers.0.input_layernorm": (HIDDEN,),
    "layers.0.post_attention_layernorm": (HIDDEN,),
    **{f"layers.0.self_attn.{name}_proj": (HIDDEN, HIDDEN) for name in "qkvo"},
    "layers.0.mlp.gate_proj": (INNER, HIDDEN),
    "layers.0.mlp.up_proj": (INNER, HIDDEN),
    "layers.0.mlp.down_proj": (HIDDEN, INNER),
}


def tiny_model(directory: Path) -> Path:
    """Write config.json, the weights and a byte-level tokenizer."""
    torch.manual_seed(1)
    weights = {f"model.{name}.weight": torch.randn(shape) * 0.3 for name, shape in _SHAPES.items()}
    save_file(weights, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(CONFIG))
    return byte_level(directory)
