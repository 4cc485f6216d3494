"""The ids of a GGUF file's special tokens. Knows no tokenizer and no configuration."""

from typing import Any

from text_generation_server.errors import UnsupportedModel
from text_generation_server.weights.gguf.container import Container

_KEYS = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown", "eot": "eot"}


def special_ids(gguf: Container) -> dict[str, int]:
    """Ids by role (bos, eos, pad, unk, eot), where the file has them. Raises UnsupportedModel for one out of range."""
    keys = {role: f"tokenizer.ggml.{name}_token_id" for role, name in _KEYS.items()}
    ids = {role: gguf.integer(key) for role, key in keys.items() if key in gguf.metadata}
    num_tokens = len(gguf.array("tokenizer.ggml.tokens"))
    for role, token_id in ids.items():
        if not 0 <= token_id < num_tokens:
            raise UnsupportedModel(f"{gguf.path}: {keys[role]} is {token_id}, expected one of the {num_tokens} tokens")
    return ids


def generation_config(gguf: Container) -> dict[str, Any]:
    """The entries of generation_config.json; a turn that ends with another token than the text makes two ends."""
    ids = special_ids(gguf)
    ends = list(dict.fromkeys(ids[role] for role in ("eos", "eot") if role in ids))
    named: dict[str, Any] = {f"{role}_token_id": ids[role] for role in ("bos", "pad") if role in ids}
    return {**named, "eos_token_id": ends if len(ends) > 1 else next(iter(ends), None)}
