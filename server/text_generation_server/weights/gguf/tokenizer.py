"""The tokenizer inside a GGUF file, as tokenizer.json and tokenizer_config.json. Knows no weights."""

from typing import Any

from tokenizers import AddedToken, Tokenizer

from text_generation_server.errors import UnsupportedModel
from text_generation_server.tokenization.special import Frame
from text_generation_server.weights.gguf.byte_level import byte_level_starts_with_bos, byte_level_tokenizer
from text_generation_server.weights.gguf.container import Container
from text_generation_server.weights.gguf.sentencepiece import sentencepiece_tokenizer
from text_generation_server.weights.gguf.special import end_ids, special_ids

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
    tokenizer.add_tokens(list(_added_tokens(gguf).values()))
    frame = Frame(_around(gguf, "bos", default=bos), _around(gguf, "eos", default=False))
    if frame != Frame():
        tokenizer.post_processor = frame.processor(tokenizer)
    return tokenizer


def tokenizer_config(gguf: Container) -> dict[str, Any]:
    """tokenizer_config.json, with the chat template inside, in a form that transformers 4 and 5 both load."""
    ids, tokens = special_ids(gguf), gguf.array("tokenizer.ggml.tokens")
    special = {f"{role}_token": tokens[ids[role]] for role in ("bos", "eos", "pad", "unk") if role in ids}
    templates = _templates(gguf)
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": gguf.integer(f"{gguf.text('general.architecture')}.context_length"),
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {str(token_id): _as_json(token) for token_id, token in _added_tokens(gguf).items()},
        **special,
        **({"chat_template": templates} if templates else {}),
    }


def _templates(gguf: Container) -> str | list[dict[str, str]]:
    """The chat template, or where there are several, each with its name."""
    others = [key for key in gguf.metadata if key.startswith(f"{_TEMPLATE}.")]
    default = gguf.text(_TEMPLATE) if _TEMPLATE in gguf.metadata else ""
    if not others:
        return default
    named = [("default", default)] if default else []
    named += [(key.removeprefix(f"{_TEMPLATE}."), gguf.text(key)) for key in others]
    return [{"name": name, "template": template} for name, template in named]


def _added_tokens(gguf: Container) -> dict[int, AddedToken]:
    """Tokens matched before any splitting: control ones, which are special, and user-defined ones, which are text.

    A token that ends answers is a control one, whatever a file calls it.
    """
    tokens, ends = gguf.array("tokenizer.ggml.tokens"), frozenset(end_ids(gguf))
    return {
        token_id: AddedToken(str(tokens[token_id]), special=kind == _CONTROL or token_id in ends, normalized=False)
        for token_id, kind in enumerate(gguf.array("tokenizer.ggml.token_type"))
        if kind in (_CONTROL, _USER_DEFINED) or token_id in ends
    }


def _as_json(token: AddedToken) -> dict[str, Any]:
    fields = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    return {field: getattr(token, field) for field in fields}


def _around(gguf: Container, role: str, default: bool) -> tuple[str, ...]:
    """The token that the file wants before or after texts, if any."""
    if not gguf.flag(f"tokenizer.ggml.add_{role}_token", default):
        return ()
    token_id = special_ids(gguf).get(role)
    if token_id is None:
        raise UnsupportedModel(f"{gguf.path} asks for {role} around texts but has no tokenizer.ggml.{role}_token_id")
    return (str(gguf.array("tokenizer.ggml.tokens")[token_id]),)
