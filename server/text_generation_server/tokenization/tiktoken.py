"""TikToken vocabularies as fast tokenizers: lines with a token's bytes in base64 and its rank, which is its id too.

The files hold neither how text is split nor what is put around it. Code elsewhere does, and is not run: a
`TikTokenFormat` says it here for each tokenizer class. Knows no model directory.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass

from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE

from text_generation_server.tokenization.byte_level import LLAMA3_WORDS, byte_characters, words_as_bytes
from text_generation_server.tokenization.merges import merges
from text_generation_server.tokenization.special import Frame

_LINE = re.compile(rb"\s*[A-Za-z0-9+/]+=* +\d+\s*(\n|$)")


@dataclass(frozen=True, slots=True)
class TikTokenFormat:
    """What a tokenizer class adds to its vocabulary: the pattern of words, and the tokens around texts."""

    words: str
    frame: Frame


FORMATS: Mapping[str, TikTokenFormat] = {
    "ChatGLM4Tokenizer": TikTokenFormat(LLAMA3_WORDS, Frame(before=("[gMASK]", "<sop>"))),
}
"""By the `tokenizer_class` of tokenizer_config.json."""


def is_tiktoken(data: bytes) -> bool:
    """Whether a file's content begins as such a vocabulary does."""
    return _LINE.match(data) is not None


def tiktoken_tokenizer(data: bytes, words: str) -> Tokenizer:
    """A fast tokenizer without special tokens; `words` is the pattern of text cut apart. ValueError for other files."""
    ranks = _ranks(data)
    characters = byte_characters()
    tokens = ["".join(characters[byte] for byte in token) for token in sorted(ranks, key=lambda token: ranks[token])]
    if sorted(ranks.values()) != list(range(len(tokens))):
        raise ValueError("its ranks do not count up from 0")
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    tokenizer = Tokenizer(BPE(vocabulary, merges(tokens), ignore_merges=True))
    tokenizer.pre_tokenizer = words_as_bytes(words)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _ranks(data: bytes) -> dict[bytes, int]:
    try:
        pairs = (line.split() for line in data.splitlines() if line.strip())
        return {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}
    except (ValueError, binascii.Error) as error:
        raise ValueError(f"it has a line that is not a token and its rank ({error})") from error
