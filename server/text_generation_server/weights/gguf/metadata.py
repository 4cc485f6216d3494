"""Which metadata of a GGUF file is carried over, and which changes nothing. All else that llama.cpp reads is refused.

The keys are those of ggml's gguf.md and llama.cpp's llama-arch.cpp. What their values become is others' work.
"""

import re
from collections.abc import Callable, Mapping

from text_generation_server.errors import UnsupportedModel
from text_generation_server.weights.gguf.container import Container, Value

_ARCHITECTURE = "general.architecture"

_CARRIED = frozenset(
    {
        *("context_length", "embedding_length", "feed_forward_length", "block_count"),
        *("attention.head_count", "attention.head_count_kv", "attention.key_length"),
        "attention.layer_norm_rms_epsilon",
        *("rope.freq_base", "rope.scale_linear", "rope.scaling.type", "rope.scaling.factor"),
        *("rope.scaling.original_context_length", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"),
        *("rope.dimension_count", "attention.value_length"),
    }
)
"""Under the architecture's name. The last line is compared with the size of a head."""

_WITHOUT_EFFECT = frozenset(
    {
        "vocab_size",  # the embedding has as many rows
        "expert_used_count",  # of no experts
        "rope.scaling.finetuned",  # says how the model was made
        "attention.layer_norm_epsilon",  # of norms that these architectures do not have
    }
)

_NEUTRAL: Mapping[str, tuple[Value, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0,),
    "attention.sliding_window": (0,),
    "attn_logit_softcapping": (0,),
    "embedding_scale": (0, 1),
    "expert_count": (0,),
    "final_logit_softcapping": (0,),
    "logit_scale": (0, 1),
    "pooling_type": (0,),
    "residual_scale": (0, 1),
    "rope.scaling.attn_factor": (1,),
    "rope.scaling.yarn_attn_factor": (1,),
    "rope.scaling.yarn_ext_factor": (1,),
    "rope.scaling.yarn_log_multiplier": (0,),
    "tensor_data_layout": ("Meta AI original pth",),
    "use_parallel_residual": (False,),
}
"""Keys that would change the arithmetic, and the values with which they do not."""

_TOKENIZER = re.compile(
    r"ggml\.(model|pre|tokens|token_type|scores|merges|add_bos_token|add_eos_token|add_space_prefix"
    r"|(bos|eos|unknown|padding|eot|eom|fim_pad|fim_rep|fim_sep)_token_id)"
    r"|chat_templates?|chat_template\.\w+"
    # Without effect: for other kinds of tokenizers, for who writes prompts, and the tokenizer again.
    r"|ggml\.(token_type_count|remove_extra_whitespaces|precompiled_charsmap)"
    r"|ggml\.(cls|mask|sep|seperator|fim_(pre|suf|mid)|prefix|suffix|middle)_token_id"
    r"|huggingface\.json"
)
_TOKENIZER_NEUTRAL: Mapping[str, tuple[Value, ...]] = {"ggml.add_sep_token": (False,)}
_GENERAL_NEUTRAL: Mapping[str, tuple[Value, ...]] = {"type": ("model",)}

_DESCRIPTIONS = ("split", "quantize", "imatrix")
"""Namespaces that say how the file was made."""

_REFUSED = ("adapter", "clip", "diffusion", "xielu")
"""Namespaces that llama.cpp reads for what is more, or other, than a model of text."""


def check_metadata(gguf: Container, report: Callable[[str], None]) -> None:
    """Raise UnsupportedModel, naming the key, for metadata that would be lost; report keys that nobody knows."""
    architecture, unknown = gguf.text(_ARCHITECTURE), []
    for key, value in gguf.metadata.items():
        namespace, _, name = key.partition(".")
        if namespace == architecture:
            known, neutral = name in _CARRIED | _WITHOUT_EFFECT, _NEUTRAL.get(name, ())
        elif namespace == "tokenizer":
            known, neutral = _TOKENIZER.fullmatch(name) is not None, _TOKENIZER_NEUTRAL.get(name, ())
        elif namespace == "general":
            known, neutral = name not in _GENERAL_NEUTRAL, _GENERAL_NEUTRAL.get(name, ())
        else:
            known, neutral = namespace not in _REFUSED, ()
            unknown += [key] if known and namespace not in _DESCRIPTIONS else []
        if not known and value not in neutral:
            expected = " or ".join(map(repr, neutral)) if neutral else "a model without it"
            raise UnsupportedModel(
                f"{gguf.path}: metadata key {key} is {_shown(value)}, which is not supported; expected {expected}"
            )
    if unknown:
        report(f"{gguf.path.name} has metadata that nothing here reads: {', '.join(unknown[:8])}")
    _check_lengths(gguf)


def _check_lengths(gguf: Container) -> None:
    count = len(gguf.array("tokenizer.ggml.tokens"))
    for key in ("tokenizer.ggml.token_type", "tokenizer.ggml.scores"):
        if key in gguf.metadata and len(gguf.array(key)) != count:
            raise UnsupportedModel(f"{gguf.path}: {key} has {len(gguf.array(key))} entries for {count} tokens")


def _shown(value: Value) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
