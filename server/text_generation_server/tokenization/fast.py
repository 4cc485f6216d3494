"""The fast tokenizer of a model directory: tokenizer.json, completed by what the other files say.

Uses the `tokenizers` library alone, which imports in 20 ms where transformers takes a second. Knows nothing of models.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import tokenizers

from text_generation_server.tokenization.files import TokenizerFiles

_CLEAN_UP = {
    **{f" {mark}": mark for mark in ".?!,"},
    " ' ": "'",
    **{f" {suffix}": suffix for suffix in ("n't", "'m", "'s", "'ve", "'re")},
}
"""English punctuation that word-level tokenizers pull apart, applied in this order."""


class FastTokenizer:
    """Encodes and decodes with a `tokenizers.Tokenizer`, which is never changed after loading and so is thread-safe."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, clean_up: bool) -> None:
        self._tokenizer = tokenizer
        # Byte-pair decoders restore spaces exactly; cleaning them up would damage the text (transformers 5 agrees).
        self._clean_up = clean_up and not isinstance(tokenizer.model, tokenizers.models.BPE)

    @classmethod
    def load(cls, directory: Path, files: TokenizerFiles) -> Self:
        """Load tokenizer.json. ValueError says so when it is damaged."""
        path = directory / "tokenizer.json"
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise ValueError(f"{path} is not a tokenizer ({error}); download or export the model again") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        _complete(tokenizer, files)
        return cls(tokenizer, files.clean_up)

    def encode(self, text: str, truncate: int, add_special_tokens: bool) -> list[int]:
        """Token ids; with `truncate` > 0 at most that many, special tokens included, dropping content on the left."""
        encoding = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        ids: list[int] = encoding.ids
        if truncate <= 0 or len(ids) <= truncate:
            return ids
        added: list[int] = encoding.special_tokens_mask
        before = added.index(0) if 0 in added else len(ids)
        after = added[::-1].index(0) if 0 in added else 0
        content = ids[before : len(ids) - after]
        kept = max(truncate - before - after, 0)
        return (ids[:before] + content[len(content) - kept :] + ids[len(ids) - after :])[:truncate]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool) -> str:
        """The text of `ids`, tidied up if the tokenizer asks for it."""
        text = self.decode_verbatim(ids, skip_special_tokens)
        if self._clean_up:
            for spaced, joined in _CLEAN_UP.items():
                text = text.replace(spaced, joined)
        return text

    def decode_verbatim(self, ids: Sequence[int], skip_special_tokens: bool) -> str:
        """The text of `ids` as the decoder gives it."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
        return text

    def id_of(self, token: str) -> int | None:
        """The id of a token's text."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def special_ids(self) -> frozenset[int]:
        """All tokens flagged special."""
        return frozenset(id for id, token in self._tokenizer.get_added_tokens_decoder().items() if token.special)

    def vocab_size(self) -> int:
        """Tokens, added ones included."""
        size: int = self._tokenizer.get_vocab_size()
        return size


def _complete(tokenizer: tokenizers.Tokenizer, files: TokenizerFiles) -> None:
    """Add the tokens that tokenizer.json lacks, and flag as special those that play a special role."""
    known = tokenizer.get_added_tokens_decoder()
    for token_id, added in sorted(files.added.items()):
        if token_id not in known:
            token = tokenizers.AddedToken(added.content, special=added.special, **added.flags)
            tokenizer.add_tokens([token])
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    missing = [text for text in files.special if text not in special]
    tokenizer.add_special_tokens([tokenizers.AddedToken(text, special=True, normalized=False) for text in missing])
