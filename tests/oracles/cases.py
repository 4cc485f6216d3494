"""The architectures that are checked against transformers: one row a case. See CONTRIBUTING.md for adding one.

Sizes are tiny, and odd where an even one could hide a mistake: vocabularies and inner sizes that no number of ranks
divides, head counts that are no power of two, heads whose width is not hidden_size / heads.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

VOCAB_SIZE = 97
_TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "vocab_size": VOCAB_SIZE}
_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128}
_LLAMA = {**_TOKENS, **_SIZES, "intermediate_size": 45, "num_key_value_heads": 2}


@dataclass(frozen=True)
class Case:
    """One tiny model.

    model_type, config: what transformers' AutoConfig is made of.
    plain_norms: norm weights are near 1 (not where the architecture adds 1 itself).
    attention: transformers' implementation. shards: save in files of about this size.
    rename: tensor names of older files. notes: what the case is there for, as the compatibility table says it.
    """

    name: str
    model_type: str
    config: Mapping[str, Any]
    notes: str
    plain_norms: bool = True
    attention: str = "eager"
    shards: str = "1GB"
    rename: Callable[[str], str] = field(default=lambda name: name)

    def __str__(self) -> str:
        return self.name


def _llama(name: str, notes: str, **config: Any) -> Case:
    return Case(name, "llama", {**_LLAMA, **config}, notes)


def _rope(kind: str, **parameters: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **parameters}}


def _falcon(name: str, notes: str, **config: Any) -> Case:
    # Eager attention of transformers 5.23 adds Falcon's linear biases twice: once in the mask, once in the layer.
    return Case(name, "falcon", {**_TOKENS, **_SIZES, **config}, notes, attention="sdpa")


CASES = (
    _llama("llama", "grouped queries"),
    _llama(
        "llama-biases",
        "biases everywhere, head_dim apart from hidden_size, tied head",
        attention_bias=True,
        mlp_bias=True,
        head_dim=12,
        tie_word_embeddings=True,
    ),
    Case(
        "llama-linear",
        "llama",
        {**_LLAMA, **_rope("linear", factor=3.0)},
        "linear rope scaling, sharded files",
        shards="20KB",
    ),
    _llama(
        "llama-3.1",
        "llama3 rope scaling",
        **_rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64),
    ),
    _llama("llama-yarn", "yarn rope scaling", **_rope("yarn", factor=4.0, original_max_position_embeddings=32)),
    Case("mistral", "mistral", {**_LLAMA, "sliding_window": 7}, "a sliding window in every layer"),
    Case("qwen2", "qwen2", _LLAMA, "biases on queries, keys and values"),
    Case(
        "qwen2-window",
        "qwen2",
        {
            **_LLAMA,
            "use_sliding_window": True,
            "sliding_window": 6,
            "max_window_layers": 1,
            "tie_word_embeddings": True,
        },
        "a sliding window in the later layers only",
    ),
    Case(
        "gemma",
        "gemma",
        {**_LLAMA, "num_key_value_heads": 1, "head_dim": 16},
        "one key/value head, copied to every rank; wide heads",
        plain_norms=False,
    ),
    Case("gpt2", "gpt2", {**_TOKENS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}, "learned positions"),
    Case(
        "gpt2-hub",
        "gpt2",
        {
            **_TOKENS,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 128,
            "n_inner": 50,
            "scale_attn_by_inverse_layer_idx": True,
        },
        "names without prefix, scores scaled by layer, own inner size",
        rename=lambda name: name.removeprefix("transformer."),
    ),
    Case(
        "gpt_neox",
        "gpt_neox",
        {**_TOKENS, **_SIZES, "intermediate_size": 45, **_rope("default", partial_rotary_factor=0.5)},
        "parallel branches with two norms, partial rotary",
    ),
    Case(
        "gpt_neox-sequential",
        "gpt_neox",
        {**_TOKENS, **_SIZES, "intermediate_size": 45, "use_parallel_residual": False, "attention_bias": False}
        | _rope("default", partial_rotary_factor=1.0),
        "sequential branches, biases in the MLP only",
    ),
    Case(
        "bloom",
        "bloom",
        {**_TOKENS, "hidden_size": 36, "n_layer": 2, "n_head": 6},
        "linear biases with a head count that is no power of two, norm after the embedding",
        rename=lambda name: name.removeprefix("transformer."),
    ),
    _falcon("falcon-7b", "parallel branches with one norm, one key/value head", multi_query=True, parallel_attn=True),
    _falcon(
        "falcon-40b",
        "new decoder: parallel branches with two norms, grouped queries",
        new_decoder_architecture=True,
        num_kv_heads=2,
    ),
    _falcon(
        "falcon-11b",
        "new decoder with one norm",
        new_decoder_architecture=True,
        num_kv_heads=2,
        num_ln_in_parallel_attn=1,
    ),
    _falcon(
        "falcon-rw",
        "linear biases on unscaled scores, sequential branches, biases",
        alibi=True,
        bias=True,
        multi_query=False,
        parallel_attn=False,
    ),
)
