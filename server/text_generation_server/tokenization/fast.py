"""A tokenizer of the `tokenizers` library, as the server uses it. Knows neither models nor files of tokenizers.

The library alone imports in 20 ms where transformers takes a second.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tokenizers

from text_generation_server.tokenization import spans
from text_generation_server.tokenization.files import TokenizerFiles
from text_generation_server.tokenization.special import Frame, complete

_CLEAN_UP = {
    **{f" {mark}": mark for mark in ".?!,"},
    " ' ": "'",
    **{f" {suffix}": suffix for suffix in ("n't", "'m", "'s", "'ve", "'re")},
}
"""English punctuation that word-level tokenizers pull apart, applied in this order."""


class Text(NamedTuple):
    """What is to be encoded; with `truncate` > 0 to at most that many tokens: special ones and the last of the rest."""

    text: str
    truncate: int


class Place(NamedTuple):
    """A token of a text and where it is from, in characters."""

    id: int
    start: int
    stop: int


class FastTokenizer:
    """Encodes and decodes with a `tokenizers.Tokenizer`, which is never changed from here on and so is thread-safe."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, files: TokenizerFiles, frame: Frame | None = None) -> None:
        """Complete `tokenizer` by what the other files say; a `frame` replaces what it puts around texts.

        Raises UnsupportedModel if they contradict each other.
        """
        tokenizer.no_truncation()
        tokenizer.no_padding()
        complete(tokenizer, files)
        if frame is not None:
            tokenizer.post_processor = frame.processor(tokenizer)
        self._tokenizer = tokenizer
        self._splits_spans = spans.splits_spans(tokenizer)
        # Byte-pair decoders restore spaces exactly; cleaning them up would damage the text (transformers 5 agrees).
        self._clean_up = files.clean_up and not isinstance(tokenizer.model, tokenizers.models.BPE)

    def encode_all(self, texts: Sequence[Text], add_special_tokens: bool) -> list[list[int]]:
        """Token ids of each text; texts are encoded side by side, on as many processors as there are."""
        # Without their places, which take half of the time.
        given = [self._given(text) for text, _ in texts]
        encodings = self._tokenizer.encode_batch_fast(given, add_special_tokens=add_special_tokens)
        return [_truncated(encoding, truncate) for encoding, (_, truncate) in zip(encodings, texts, strict=True)]

    def locate(self, text: str, add_special_tokens: bool) -> list[Place]:
        """All tokens, and their places in `text`, which are empty for those put around it."""
        encoding = self._tokenizer.encode(self._given(text), add_special_tokens=add_special_tokens)
        located = [Place(token_id, *offsets) for token_id, offsets in zip(encoding.ids, encoding.offsets, strict=True)]
        if not self._splits_spans:
            return located
        origin = spans.places(text)
        return [Place(token_id, origin[start], origin[stop]) for token_id, start, stop in located]

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

    def added_ids(self) -> frozenset[int]:
        """All tokens beside the vocabulary, which are spelled as they are."""
        return frozenset(self._tokenizer.get_added_tokens_decoder())

    def spellings(self) -> dict[int, str]:
        """What the vocabulary calls each token, by id."""
        return {token_id: text for text, token_id in self._tokenizer.get_vocab().items()}

    def vocab_size(self) -> int:
        """Tokens, added ones included."""
        size: int = self._tokenizer.get_vocab_size()
        return size

    def _given(self, text: str) -> str:
        return spans.separated(text) if self._splits_spans else text


def _truncated(encoding: tokenizers.Encoding, truncate: int) -> list[int]:
    ids: list[int] = encoding.ids
    if truncate <= 0 or len(ids) <= truncate:
        return ids
    added: list[int] = encoding.special_tokens_mask
    before = added.index(0) if 0 in added else len(ids)
    after = added[::-1].index(0) if 0 in added else 0
    content = ids[before : len(ids) - after]
    kept = max(truncate - before - after, 0)
    return (ids[:before] + content[len(content) - kept :] + ids[len(ids) - after :])[:truncate]
