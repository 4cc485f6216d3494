"""What a GGUF architecture is called elsewhere: tensor names and config.json. Knows no files and no tokenizer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from text_generation_server.errors import UnsupportedModel
from text_generation_server.weights.gguf.container import Container
from text_generation_server.weights.gguf.special import generation_config


@dataclass(frozen=True, slots=True)
class Architecture:
    """How one value of general.architecture reads as a transformers model.

    model_type, class_name: of config.json.
    interleaved_rope: the rows of q and k of a head alternate between the rotary halves, and must be put back.
    """

    model_type: str
    class_name: str
    interleaved_rope: bool


ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture("llama", "LlamaForCausalLM", interleaved_rope=True),
    "qwen2": Architecture("qwen2", "Qwen2ForCausalLM", interleaved_rope=False),
}

_OUTSIDE_LAYERS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_IN_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
ROPE_FACTORS = "rope_freqs.weight"
"""The one tensor that becomes configuration: what each rotary frequency is divided by."""


def architecture_of(gguf: Container) -> Architecture:
    """Raises UnsupportedModel, naming general.architecture."""
    name = gguf.text("general.architecture")
    if name not in ARCHITECTURES:
        raise UnsupportedModel(
            f"{gguf.path}: general.architecture is {name!r}, expected one of {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[name]


def checkpoint_name(name: str) -> str | None:
    """The transformers name of a llama.cpp tensor name, or None where there is none."""
    stem, _, kind = name.rpartition(".")
    match stem.split(".", 2):
        case ["blk", layer, part] if part in _IN_LAYER:
            return f"model.layers.{layer}.{_IN_LAYER[part]}.{kind}"
        case [part] if part in _OUTSIDE_LAYERS:
            return f"{_OUTSIDE_LAYERS[part]}.{kind}"
        case _:
            return None


def head_dim(gguf: Container) -> int:
    """Numbers a head. Raises UnsupportedModel where the counts in the metadata do not fit the tensors."""
    prefix = gguf.text("general.architecture")
    heads, rows = gguf.integer(f"{prefix}.attention.head_count"), gguf.tensor("blk.0.attn_q.weight").num_rows
    dim = gguf.integer(f"{prefix}.attention.key_length", rows // max(heads, 1))
    if dim <= 0 or heads * dim != rows:
        raise UnsupportedModel(f"{gguf.path}: {heads} heads of {dim} numbers do not make the {rows} rows of attn_q")
    for key in (f"{prefix}.rope.dimension_count", f"{prefix}.attention.value_length"):
        if gguf.integer(key, dim) != dim:
            raise UnsupportedModel(f"{gguf.path}: {key} is {gguf.metadata[key]!r}, expected {dim}, the size of a head")
    return dim


def model_config(gguf: Container, factors: np.ndarray[Any, Any] | None, torch_dtype: str) -> dict[str, Any]:
    """config.json as transformers 4 and 5 both read it. factors: the numbers of ROPE_FACTORS, where the file has it."""
    architecture = architecture_of(gguf)
    prefix = gguf.text("general.architecture")
    heads = gguf.integer(f"{prefix}.attention.head_count")
    return {
        "architectures": [architecture.class_name],
        "model_type": architecture.model_type,
        "torch_dtype": torch_dtype,
        "vocab_size": gguf.tensor("token_embd.weight").num_rows,
        "hidden_size": gguf.integer(f"{prefix}.embedding_length"),
        "intermediate_size": gguf.integer(f"{prefix}.feed_forward_length"),
        "num_hidden_layers": gguf.integer(f"{prefix}.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": gguf.integer(f"{prefix}.attention.head_count_kv", heads),
        "head_dim": head_dim(gguf),
        "hidden_act": "silu",
        "max_position_embeddings": gguf.integer(f"{prefix}.context_length"),
        "rms_norm_eps": _shortest(gguf.number(f"{prefix}.attention.layer_norm_rms_epsilon")),
        "rope_theta": _rope_theta(gguf, prefix),
        "rope_scaling": _rope_scaling(gguf, prefix, factors),
        "tie_word_embeddings": "output.weight" not in gguf.tensors,
        "attention_bias": "blk.0.attn_q.bias" in gguf.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in gguf.tensors,
        **generation_config(gguf),
    }


def _shortest(number: float) -> float:
    """The shortest decimal that is the same float32: 1e-05, where the file's double reads 9.999999747378752e-06."""
    return float(str(np.float32(number)))


def _rope_theta(gguf: Container, prefix: str) -> float:
    key = f"{prefix}.rope.freq_base"
    return _shortest(gguf.number(key)) if key in gguf.metadata else 10000.0


def _rope_scaling(gguf: Container, prefix: str, factors: np.ndarray[Any, Any] | None) -> dict[str, Any] | None:
    """Without a type it is linear, as llama.cpp reads it; the older key of a factor is for that one alone."""
    key = f"{prefix}.rope.scaling.type"
    kind = gguf.text(key) if key in gguf.metadata else "linear"
    if kind not in ("none", "linear", "yarn"):
        raise UnsupportedModel(f"{gguf.path}: {key} is {kind!r}, expected none, linear or yarn")
    older = f"{prefix}.rope.scale_linear"
    factor_key = older if older in gguf.metadata else f"{prefix}.rope.scaling.factor"
    factor = 1.0 if kind == "none" or factor_key not in gguf.metadata else _shortest(gguf.number(factor_key))
    if factors is not None:
        if factor not in (0.0, 1.0):
            raise UnsupportedModel(f"{gguf.path}: {factor_key} is {factor} beside {ROPE_FACTORS}, expected one of them")
        return _llama3_scaling(gguf, _rope_theta(gguf, prefix), factors)
    if factor in (0.0, 1.0):
        return None
    scaling = {"rope_type": kind, "factor": factor}
    return scaling if kind == "linear" else scaling | _yarn(gguf, prefix)


def _yarn(gguf: Container, prefix: str) -> dict[str, Any]:
    trained = gguf.integer(f"{prefix}.context_length")
    named = {name: f"{prefix}.rope.scaling.yarn_{name}" for name in ("beta_fast", "beta_slow")}
    return {
        "original_max_position_embeddings": gguf.integer(f"{prefix}.rope.scaling.original_context_length", trained),
        **{name: _shortest(gguf.number(key)) for name, key in named.items() if key in gguf.metadata},
    }


def _llama3_scaling(gguf: Container, theta: float, factors: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Llama 3.1's scaling, of which the file holds only the result: the published one, where that gives the same."""
    scaling = {
        "rope_type": "llama3",
        "factor": float(factors.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    if not np.allclose(_llama3_factors(len(factors), theta, float(factors.max())), factors, rtol=1e-3):
        raise UnsupportedModel(f"{gguf.path}: {ROPE_FACTORS} is not Llama 3.1's rope scaling, the one form read")
    return scaling


def _llama3_factors(count: int, theta: float, factor: float) -> np.ndarray[Any, Any]:
    """What rotary frequencies are divided by: 1 for short wavelengths, `factor` for long, smooth between."""
    wavelengths = 2 * np.pi * theta ** (np.arange(count) / count)
    smooth = np.clip((8192 / wavelengths - 1.0) / (4.0 - 1.0), 0.0, 1.0)
    return np.asarray(1 / ((1 - smooth) / factor + smooth))
