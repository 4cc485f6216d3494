"""The ids of a GGUF file's special tokens, and at which of them an answer ends. Knows no tokenizer."""

from typing import Any

from text_generation_server.errors import UnsupportedModel
from text_generation_server.weights.gguf.container import Container

_KEYS = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown", "eot": "eot", "eom": "eom"} | {
    role: role for role in ("fim_pad", "fim_rep", "fim_sep")
}
_SENTENCEPIECE_IDS = {"unk": 0, "bos": 1, "eos": 2}
"""What the ids are in files of that kind which do not say; those of the other kind have no such custom."""

_ENDING_ROLES = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")
_ENDING_TEXTS = frozenset(
    {
        *("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<|eom_id|>"),
        *("</s>", "<eos>", "[EOS]", "<EOT>", "_<EOT>", "[EOT]", "<end_of_utterance>", "<turn|>", "<|tool_response>"),
        *("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
        *("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>"),
    }
)
"""Tokens at which llama.cpp ends whatever the file says (llama-vocab.cpp): of a text, a turn, a file being filled in.

Files often name the text's end alone, while the model ends its turn with another. Without those of gpt-oss, which
contradict these and whose files are not read.
"""


def special_ids(gguf: Container) -> dict[str, int]:
    """Ids by role (bos, eos, pad, unk, eot, …), where there are. Raises UnsupportedModel for one out of range."""
    num_tokens = len(gguf.array("tokenizer.ggml.tokens"))
    keys = {role: f"tokenizer.ggml.{name}_token_id" for role, name in _KEYS.items()}
    ids = {role: gguf.integer(key) for role, key in keys.items() if key in gguf.metadata}
    for role, token_id in ids.items():
        if not 0 <= token_id < num_tokens:
            raise UnsupportedModel(f"{gguf.path}: {keys[role]} is {token_id}, expected one of the {num_tokens} tokens")
    if gguf.text("tokenizer.ggml.model") == "llama":
        ids = {role: token_id for role, token_id in _SENTENCEPIECE_IDS.items() if token_id < num_tokens} | ids
    return ids


def end_ids(gguf: Container) -> list[int]:
    """The tokens that end an answer: those that the file names, then those known by their text."""
    ids, tokens = special_ids(gguf), gguf.array("tokenizer.ggml.tokens")
    named = [ids[role] for role in _ENDING_ROLES if role in ids]
    return list(dict.fromkeys([*named, *(number for number, text in enumerate(tokens) if text in _ENDING_TEXTS)]))


def generation_config(gguf: Container) -> dict[str, Any]:
    """The entries of generation_config.json."""
    ids, ends = special_ids(gguf), end_ids(gguf)
    named: dict[str, Any] = {f"{role}_token_id": ids[role] for role in ("bos", "pad") if role in ids}
    return {**named, "eos_token_id": ends if len(ends) > 1 else next(iter(ends), None)}
