"""The tokenizer as the server uses it: prompts to ids, ids to text, and which ids are special or end a generation.

Knows nothing of requests, and of the model only what its directory says about tokens.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self

from text_generation_server.tokenization.converted import ConvertedTokenizer
from text_generation_server.tokenization.fast import FastTokenizer
from text_generation_server.tokenization.files import TokenizerFiles

_PATTERNS = ("*token*", "*.model", "*.tiktoken", "vocab*", "merges.txt")
"""Names of files that tokenizers are made of."""


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
        """Load from tokenizer.json where there is one, through transformers otherwise.

        `trust_remote_code` lets transformers run Python code of the directory.

        Raises:
            FileNotFoundError: the directory has no tokenizer at all.
            ValueError: a file is damaged, or transformers cannot convert what is there.
        """
        files = TokenizerFiles.read(directory)
        if (directory / "tokenizer.json").is_file():
            return cls(FastTokenizer.load(directory, files), files)
        if not any(path.is_file() for pattern in _PATTERNS for path in directory.glob(pattern)):
            raise FileNotFoundError(
                f"{directory} has no tokenizer: expected tokenizer.json, or files that transformers can convert "
                "(tokenizer.model, vocab.json and merges.txt); copy the model's tokenizer files there"
            )
        return cls(ConvertedTokenizer.load(directory, trust_remote_code), files)

    def encode(self, text: str, truncate: int = 0, add_special_tokens: bool = True) -> list[int]:
        """The ids of `text`; if `truncate` is not 0, at most that many: special tokens and the last of the rest."""
        return self._backend.encode(text, truncate, add_special_tokens)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of `ids` with the tokenizer's default clean-up; incomplete characters appear as U+FFFD."""
        return self._backend.decode(ids, skip_special_tokens)

    def token_text(self, token_id: int) -> str:
        """The text of one id decoded alone, special tokens in their literal form, no clean-up."""
        return self._backend.decode_verbatim([token_id], False)

    def _id_set(self, token: str | None) -> frozenset[int]:
        token_id = None if token is None else self._backend.id_of(token)
        return frozenset() if token_id is None else frozenset({token_id})
