"""The tokenizer as the server uses it: prompts to ids, ids to text, and which ids are special or end a generation.

Knows nothing of requests, and of the model only what its directory says about tokens.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self

from text_generation_server.errors import UnsupportedModel
from text_generation_server.tokenization.converted import ConvertedTokenizer
from text_generation_server.tokenization.fast import FastTokenizer, Place, Text
from text_generation_server.tokenization.files import TokenizerFiles
from text_generation_server.tokenization.formats import load_backend
from text_generation_server.tokenization.token_bytes import token_bytes


class Tokenizer(Protocol):
    """What the engine needs to turn ids into text and to know when to stop."""

    @property
    def eos_ids(self) -> frozenset[int]:
        """Ids that end a generation."""

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of special tokens."""

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of `ids` with the tokenizer's default clean-up; incomplete characters appear as U+FFFD."""

    def token_text(self, token_id: int) -> str:
        """The text of one id decoded alone, special tokens in their literal form, no clean-up."""

    def token_bytes(self) -> list[bytes]:
        """The bytes each token stands for, by id; empty where an id has no token."""


class TokenizerAdapter:
    """The tokenizer of a model directory; all methods may be called from any thread.

    eos_ids: the union of config.json, generation_config.json and the tokenizer's own end token.
    special_ids: tokens with a special role, and added tokens flagged special.
    model_max_length: tokens, None if the tokenizer sets no limit.
    vocab_size: number of tokens, added ones included; a model's may be padded beyond it.
    """

    def __init__(self, backend: FastTokenizer | ConvertedTokenizer, files: TokenizerFiles) -> None:
        self._backend = backend
        self.special_ids = backend.special_ids()
        self.eos_ids = files.eos_ids | self._id_set(files.eos)
        self.model_max_length = files.model_max_length
        self.vocab_size = backend.vocab_size()

    @classmethod
    def load(cls, directory: Path, trust_remote_code: bool = False) -> Self:
        """Load from the files that there are; `formats` says which are tried.

        `trust_remote_code` lets transformers run Python code of the directory, where nothing else helps.

        Raises:
            ModelNotFound: the directory has no tokenizer at all.
            UnsupportedModel: a file is damaged, or of a format that cannot be read.
        """
        try:
            files = TokenizerFiles.read(directory)
            return cls(load_backend(directory, files, trust_remote_code), files)
        except OSError as error:
            raise UnsupportedModel(f"{directory} cannot be read: {error}") from error

    def encode(self, text: str, truncate: int = 0, add_special_tokens: bool = True) -> list[int]:
        """The ids of `text`; if `truncate` is not 0, at most that many: special tokens and the last of the rest."""
        (ids,) = self.encode_all([Text(text, truncate)], add_special_tokens)
        return ids

    def encode_all(self, texts: Sequence[Text], add_special_tokens: bool = True) -> list[list[int]]:
        """The ids of each text, which is faster than one after the other."""
        return self._backend.encode_all(texts, add_special_tokens)

    def locate(self, text: str, add_special_tokens: bool = True) -> list[Place]:
        """All tokens, and their places in `text`; empty where there is none or it is not known."""
        return self._backend.locate(text, add_special_tokens)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of `ids` with the tokenizer's default clean-up; incomplete characters appear as U+FFFD."""
        return self._backend.decode(ids, skip_special_tokens)

    def token_text(self, token_id: int) -> str:
        """The text of one id decoded alone, special tokens in their literal form, no clean-up."""
        return self._backend.decode_verbatim([token_id], False)

    def token_bytes(self) -> list[bytes]:
        """The bytes each token stands for, by id; empty where an id has no token."""
        spellings = self._backend.spellings()
        every_id = range(max(spellings, default=-1) + 1)
        return token_bytes([spellings.get(token_id, "") for token_id in every_id], self._backend.added_ids())

    def ids_beyond(self, vocab_size: int) -> dict[int, str]:
        """The tokens that a model of so many ids does not know, and how the vocabulary calls them."""
        return {token_id: text for token_id, text in self._backend.spellings().items() if token_id >= vocab_size}

    def id_of(self, token: str) -> int | None:
        """The id of a token's text, if there is such a token."""
        return self._backend.id_of(token)

    def _id_set(self, token: str | None) -> frozenset[int]:
        token_id = None if token is None else self.id_of(token)
        return frozenset() if token_id is None else frozenset({token_id})
