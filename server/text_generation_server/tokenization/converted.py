"""Tokenizers that only transformers can load: vocab.json with merges.txt, rarer formats, and remote code.

Imports transformers when one is loaded, not before: it costs a second. Knows nothing of models.
"""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import tokenizers

from text_generation_server.errors import UnsupportedModel
from text_generation_server.tokenization.fast import Place, Text


class ConvertedTokenizer:
    """The same calls as `FastTokenizer`, answered by a tokenizer written in Python."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._lock = Lock()  # truncation is state of the tokenizer there

    def encode_all(self, texts: Sequence[Text], add_special_tokens: bool) -> list[list[int]]:
        """As `FastTokenizer.encode_all`, one after the other."""
        return [self._encode(text, truncate, add_special_tokens) for text, truncate in texts]

    def _encode(self, text: str, truncate: int, add_special_tokens: bool) -> list[int]:
        limit = {"truncation": True, "max_length": truncate} if truncate > 0 else {}
        with self._lock:
            encoded = self._tokenizer(text, add_special_tokens=add_special_tokens, verbose=False, **limit)
        ids: list[int] = encoded.input_ids
        return ids

    def locate(self, text: str, add_special_tokens: bool) -> list[Place]:
        """As `FastTokenizer.locate`, but all places are empty: such tokenizers do not know them."""
        return [Place(token_id, 0, 0) for token_id in self._encode(text, 0, add_special_tokens)]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool) -> str:
        """As `FastTokenizer.decode`."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    def decode_verbatim(self, ids: Sequence[int], skip_special_tokens: bool) -> str:
        """As `FastTokenizer.decode_verbatim`."""
        text: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return text

    def id_of(self, token: str) -> int | None:
        """As `FastTokenizer.id_of`."""
        found: int | None = self._tokenizer.get_vocab().get(token)
        return found

    def special_ids(self) -> frozenset[int]:
        """As `FastTokenizer.special_ids`."""
        added = (id for id, token in self._tokenizer.added_tokens_decoder.items() if token.special)
        return frozenset(self._tokenizer.all_special_ids) | frozenset(added)

    def added_ids(self) -> frozenset[int]:
        """As `FastTokenizer.added_ids`."""
        return frozenset(self._tokenizer.added_tokens_decoder)

    def spellings(self) -> dict[int, str]:
        """As `FastTokenizer.spellings`."""
        return {token_id: text for text, token_id in self._tokenizer.get_vocab().items()}

    def vocab_size(self) -> int:
        """As `FastTokenizer.vocab_size`."""
        return len(self._tokenizer)


def convert(directory: Path, trust_remote_code: bool) -> tokenizers.Tokenizer | ConvertedTokenizer:
    """Let transformers load the files of `directory`; what it builds with the `tokenizers` library needs it no more.

    `trust_remote_code` lets it run Python code of the directory. UnsupportedModel repeats what it says when it cannot.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(directory), trust_remote_code=trust_remote_code, truncation_side="left", local_files_only=True
        )
    except Exception as error:  # missing packages, refused remote code and bad files all raise differently
        reason = " ".join(str(error).split())
        raise UnsupportedModel(
            f"no tokenizer.json in {directory}, and transformers cannot convert what is there: {reason}"
        ) from error
    if tokenizer.is_fast and type(tokenizer).__module__.startswith("transformers."):
        backend: tokenizers.Tokenizer = tokenizer.backend_tokenizer
        return backend
    return ConvertedTokenizer(tokenizer)
