"""Tokenizers made for these tests, saved as a model's directory holds them."""

import json
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

BOS, FAIL, EOS = 254, 255, 256
"""Bytes that no UTF-8 text has stand for special tokens, so that all other ids are bytes."""

_SETTINGS = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}


def byte_level(directory: Path) -> Path:
    """Ids are bytes, after BOS where special tokens are wanted; `<fail>` is the token that fails the mock model."""
    vocabulary = {_spelling(byte): byte for byte in range(BOS)} | {"<s>": BOS, "<fail>": FAIL, "</s>": EOS}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.add_tokens(["<fail>"])
    return _save(tokenizer, BOS, directory)


def sentencepiece(directory: Path) -> tuple[Path, dict[str, int]]:
    """Words with a leading-space marker and byte fallback, as Llama's; and its vocabulary."""
    pieces = ["<unk>", "<s>", "</s>", "▁", *"abcdeghlortwy", "▁world", "▁hello", "▁the", "▁day", "s"]
    pieces += [f"<0x{byte:02X}>" for byte in range(200)]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    merges = [*_merges("▁hello"), *_merges("▁world"), *_merges("▁the"), *_merges("▁day")]
    for left, right in merges:
        vocabulary.setdefault(left + right, len(vocabulary))
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return _save(tokenizer, vocabulary["<s>"], directory), vocabulary


def _merges(piece: str) -> list[tuple[str, str]]:
    return [(piece[:end], piece[end]) for end in range(1, len(piece))]


def _save(tokenizer: tokenizers.Tokenizer, bos: int, directory: Path) -> Path:
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", bos)])
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps(_SETTINGS))
    return directory


def _spelling(byte: int) -> str:
    """The printable character that byte-level vocabularies write for a byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    if byte in printable:
        return chr(byte)
    return chr(0x100 + sum(1 for other in range(byte) if other not in printable))
