"""Byte-level BPE as GGUF files hold it (tokenizer.ggml.model "gpt2"): vocabulary, merges, and how words are split."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from text_generation_server.errors import UnsupportedModel
from text_generation_server.tokenization.byte_level import LLAMA3_WORDS, QWEN2_WORDS, words_as_bytes
from text_generation_server.weights.gguf.container import Container


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


_SPLITTINGS: Mapping[str, Splitting] = {
    "gpt-2": Splitting(_byte_level),
    "smollm": Splitting(_digits_apart),
    "llama-bpe": Splitting(lambda: words_as_bytes(LLAMA3_WORDS), whole_words=True, bos=True),
    "qwen2": Splitting(lambda: words_as_bytes(QWEN2_WORDS), nfc=True),
}


def byte_level_tokenizer(gguf: Container) -> Tokenizer:
    """The tokenizer without its special tokens. Raises UnsupportedModel, naming the key, for another splitting."""
    splitting = _splitting(gguf)
    tokenizer = Tokenizer(_model(gguf, splitting))
    if splitting.nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = splitting.pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _model(gguf: Container, splitting: Splitting) -> BPE:
    vocabulary = {str(token): token_id for token_id, token in enumerate(gguf.array("tokenizer.ggml.tokens"))}
    try:
        return BPE(vocabulary, _merges(gguf), ignore_merges=splitting.whole_words)
    except Exception as error:  # the library has no class of its own for a merge of unknown tokens
        raise UnsupportedModel(f"{gguf.path}: tokenizer.ggml.merges do not fit the tokens: {error}") from error


def byte_level_starts_with_bos(gguf: Container) -> bool:
    """Whether texts start with bos where the file does not say."""
    return _splitting(gguf).bos


def _splitting(gguf: Container) -> Splitting:
    name = gguf.text("tokenizer.ggml.pre")
    if name not in _SPLITTINGS:
        raise UnsupportedModel(f"{gguf.path}: tokenizer.ggml.pre is {name!r}, expected one of {', '.join(_SPLITTINGS)}")
    return _SPLITTINGS[name]


def _merges(gguf: Container) -> list[tuple[str, str]]:
    """Pairs in order of precedence; the file has them as "left right"."""
    pairs = (str(merge).partition(" ") for merge in gguf.array("tokenizer.ggml.merges"))
    return [(left, right) for left, _, right in pairs]
