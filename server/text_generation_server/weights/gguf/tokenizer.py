"""The tokenizer inside a GGUF file, as tokenizer.json and tokenizer_config.json. Knows no weights."""

from typing import Any

from tokenizers import AddedToken, Tokenizer, processors

from text_generation_server.errors import UnsupportedModel
from text_generation_server.weights.gguf.byte_level import byte_level_starts_with_bos, byte_level_tokenizer
from text_generation_server.weights.gguf.container import Container
from text_generation_server.weights.gguf.sentencepiece import sentencepiece_tokenizer
from text_generation_server.weights.gguf.special import special_ids

_CONTROL, _USER_DEFINED = 3, 4
_TEMPLATE = "tokenizer.chat_template"


def build_tokenizer(gguf: Container) -> Tokenizer:
    """A fast tokenizer with the file's ids. Raises UnsupportedModel, naming the key, for a kind not read here."""
    model = gguf.text("tokenizer.ggml.model")
    match model:
        case "gpt2":
            tokenizer, bos = byte_level_tokenizer(gguf), byte_level_starts_with_bos(gguf)
        case "llama":
            tokenizer, bos = sentencepiece_tokenizer(gguf), True
        case _:
            raise UnsupportedModel(f"{gguf.path}: tokenizer.ggml.model is {model!r}, expected gpt2 or llama")
    if gguf.metadata.get("tokenizer.ggml.add_bos_token", bos):
        tokenizer.post_processor = _starting_with_bos(gguf)
    tokenizer.add_tokens(list(_added_tokens(gguf).values()))
    return tokenizer


def tokenizer_config(gguf: Container) -> dict[str, Any]:
    """tokenizer_config.json, with the chat template inside, in a form that transformers 4 and 5 both load."""
    ids, tokens = special_ids(gguf), gguf.array("tokenizer.ggml.tokens")
    special = {f"{role}_token": tokens[ids[role]] for role in ("bos", "eos", "pad", "unk") if role in ids}
    template = {"chat_template": gguf.text(_TEMPLATE)} if _TEMPLATE in gguf.metadata else {}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": gguf.integer(f"{gguf.text('general.architecture')}.context_length"),
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {str(token_id): _as_json(token) for token_id, token in _added_tokens(gguf).items()},
        **special,
        **template,
    }


def _added_tokens(gguf: Container) -> dict[int, AddedToken]:
    """Tokens matched before any splitting: control ones, which are special, and user-defined ones, which are text."""
    tokens = gguf.array("tokenizer.ggml.tokens")
    return {
        token_id: AddedToken(str(tokens[token_id]), special=kind == _CONTROL, normalized=False)
        for token_id, kind in enumerate(gguf.array("tokenizer.ggml.token_type"))
        if kind in (_CONTROL, _USER_DEFINED)
    }


def _as_json(token: AddedToken) -> dict[str, Any]:
    fields = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    return {field: getattr(token, field) for field in fields}


def _starting_with_bos(gguf: Container) -> processors.PostProcessor:
    bos_id = special_ids(gguf).get("bos")
    if bos_id is None:
        raise UnsupportedModel(f"{gguf.path} asks for bos in front of texts but has no tokenizer.ggml.bos_token_id")
    bos = str(gguf.array("tokenizer.ggml.tokens")[bos_id])
    return processors.TemplateProcessing(f"{bos} $A", f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, bos_id)])
