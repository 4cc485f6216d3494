"""The tokenizer inside a GGUF file, as tokenizer.json and tokenizer_config.json. Knows no weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from text_generation_server.errors import UnsupportedModel
from text_generation_server.weights.gguf.container import Container

_CONTROL, _USER_DEFINED = 3, 4
_TEMPLATE = "tokenizer.chat_template"

_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2_SPLIT = _LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")


@dataclass(frozen=True, slots=True)
class Splitting:
    """What one value of tokenizer.ggml.pre means.

    pre_tokenizer: cuts text into words of byte characters.
    nfc: text is brought to Unicode's composed form first.
    whole_words: a word that is a token is taken without merging.
    bos: texts start with bos where the file does not say.
    """

    pre_tokenizer: Callable[[], pre_tokenizers.PreTokenizer]
    nfc: bool = False
    whole_words: bool = False
    bos: bool = False


def _byte_level() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def _digits_apart() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _byte_level()])


def _split_by(pattern: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


_SPLITTINGS: Mapping[str, Splitting] = {
    "gpt-2": Splitting(_byte_level),
    "smollm": Splitting(_digits_apart),
    "llama-bpe": Splitting(lambda: _split_by(_LLAMA3_SPLIT), whole_words=True, bos=True),
    "qwen2": Splitting(lambda: _split_by(_QWEN2_SPLIT), nfc=True),
}


def build_tokenizer(gguf: Container) -> Tokenizer:
    """A fast tokenizer with the file's ids. Raises UnsupportedModel, naming the key, for a kind not read here."""
    model = gguf.text("tokenizer.ggml.model")
    if model != "gpt2":
        raise UnsupportedModel(f"{gguf.path}: tokenizer.ggml.model is {model!r}, expected 'gpt2' (byte-level BPE)")
    splitting = _splitting(gguf)
    vocabulary = {str(token): token_id for token_id, token in enumerate(gguf.array("tokenizer.ggml.tokens"))}
    tokenizer = Tokenizer(BPE(vocabulary, _merges(gguf), ignore_merges=splitting.whole_words))
    if splitting.nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = splitting.pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = _post_processor(gguf, splitting)
    tokenizer.add_tokens(list(_added_tokens(gguf).values()))
    return tokenizer


def tokenizer_config(gguf: Container) -> dict[str, Any]:
    """tokenizer_config.json, with the chat template inside, in a form that transformers 4 and 5 both load."""
    names = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
    tokens = gguf.array("tokenizer.ggml.tokens")
    keys = {name: f"tokenizer.ggml.{key}_token_id" for name, key in names.items()}
    special = {name: tokens[gguf.integer(key)] for name, key in keys.items() if key in gguf.metadata}
    template = {"chat_template": gguf.text(_TEMPLATE)} if _TEMPLATE in gguf.metadata else {}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": gguf.integer(f"{gguf.text('general.architecture')}.context_length"),
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {str(token_id): _as_json(token) for token_id, token in _added_tokens(gguf).items()},
        **special,
        **template,
    }


def _splitting(gguf: Container) -> Splitting:
    name = gguf.text("tokenizer.ggml.pre")
    if name not in _SPLITTINGS:
        raise UnsupportedModel(f"{gguf.path}: tokenizer.ggml.pre is {name!r}, expected one of {', '.join(_SPLITTINGS)}")
    return _SPLITTINGS[name]


def _merges(gguf: Container) -> list[tuple[str, str]]:
    """Pairs in order of precedence; the file has them as "left right"."""
    pairs = (str(merge).partition(" ") for merge in gguf.array("tokenizer.ggml.merges"))
    return [(left, right) for left, _, right in pairs]


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


def _post_processor(gguf: Container, splitting: Splitting) -> processors.PostProcessor:
    """Byte-level offsets, and a bos in front where the file asks for it."""
    byte_level = processors.ByteLevel(trim_offsets=False)
    if not gguf.metadata.get("tokenizer.ggml.add_bos_token", splitting.bos):
        return byte_level
    bos_id = gguf.integer("tokenizer.ggml.bos_token_id")
    bos = str(gguf.array("tokenizer.ggml.tokens")[bos_id])
    with_bos = processors.TemplateProcessing(f"{bos} $A", f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, bos_id)])
    return processors.Sequence([byte_level, with_bos])
