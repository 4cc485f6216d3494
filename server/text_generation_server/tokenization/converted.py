"""Tokenizers that only transformers can load: SentencePiece files without a tokenizer.json, and remote code.

Imports transformers when one is loaded, not before: it costs a second. Knows nothing of models.
"""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Self


class ConvertedTokenizer:
    """The same calls as `FastTokenizer`, answered by a transformers tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._lock = Lock()  # truncation is state of the tokenizer there

    @classmethod
    def load(cls, directory: Path, trust_remote_code: bool) -> Self:
        """Convert the files of `directory`. ValueError repeats what transformers says when it cannot."""
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(
                str(directory), trust_remote_code=trust_remote_code, truncation_side="left", local_files_only=True
            )
        except Exception as error:  # missing packages, refused remote code and bad files all raise differently
            raise ValueError(
                f"no tokenizer.json in {directory}, and transformers cannot convert what is there: {error}"
            ) from error
        return cls(tokenizer)

    def encode(self, text: str, truncate: int, add_special_tokens: bool) -> list[int]:
        """As `FastTokenizer.encode`."""
        limit = {"truncation": True, "max_length": truncate} if truncate > 0 else {}
        with self._lock:
            encoded = self._tokenizer(text, add_special_tokens=add_special_tokens, verbose=False, **limit)
        ids: list[int] = encoded.input_ids
        return ids

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

    def vocab_size(self) -> int:
        """As `FastTokenizer.vocab_size`."""
        return len(self._tokenizer)
