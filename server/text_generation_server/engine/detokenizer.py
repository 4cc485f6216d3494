"""Turns one request's tokens into texts as they come, holding bytes back until they make whole characters.

Knows nothing of stop rules or batches. The rules: docs/protocol.md#texts.
"""

from collections.abc import Sequence

from text_generation_server.tokenization.adapter import Tokenizer

_CONTEXT_TOKENS = 5
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_MAX_HELD = 16
_LONGEST_PARTIAL = 3
"""A character has at most 4 bytes, so the tokens before the last 3 held ones cannot be part of an unfinished one."""


class IncrementalText:
    """The text of one generation.

    A token's text is what it adds to the decoding of the tokens around it, because a token decoded alone may lose its
    leading space. Two short decodings a token, whatever the length of the sequence.
    """

    def __init__(self, prompt_ids: Sequence[int], tokenizer: Tokenizer, generated: int = 0) -> None:
        """The last `generated` of `prompt_ids` are no prompt: the text goes on behind them, wherever they end."""
        self._tokenizer = tokenizer
        self._generated_from = min(len(prompt_ids) - generated, _CONTEXT_TOKENS)
        self._ids = list(prompt_ids[len(prompt_ids) - generated - self._generated_from :])
        self._read = self._last_whole()  # where the unread tokens start
        self._prefix = max(self._read - _CONTEXT_TOKENS, 0)  # where the context of the unread tokens starts
        self._context = self._decode(self._prefix, self._read)
        self._unread = ""
        unread = self._ids[self._read :]
        del self._ids[self._read :]
        for token_id in unread:
            self.append(token_id)

    @property
    def held(self) -> str:
        """The complete characters of unread tokens: they wait for the unfinished one behind them."""
        return self._unread.rstrip(_REPLACEMENT)

    def end(self, length: int) -> str:
        """The last `length` characters of what has been read, or all."""
        if length == 0 or self._read == self._generated_from:
            return ""
        # A character has at most four tokens.
        start = max(self._generated_from, self._read - 4 * length - _MAX_HELD)
        context = max(start - _CONTEXT_TOKENS, 0)
        read = self._decode(context, self._read)[len(self._decode(context, start)) :]
        return read[max(len(read) - length, 0) :]

    def append(self, token_id: int) -> str:
        """The characters that `token_id` completes; "" while it leaves the last one unfinished."""
        self._ids.append(token_id)
        text = self._decode(self._prefix, len(self._ids))
        new = text[len(self._context) :]
        if new and not text.endswith(_REPLACEMENT):
            self._advance(len(self._ids), unread="")
            return new
        self._unread = new
        if len(self._ids) - self._read <= _MAX_HELD:
            return ""
        # Invalid bytes that never become a character: without this, each further token would decode all of them again.
        settled = len(self._ids) - _LONGEST_PARTIAL
        text = self._decode(self._prefix, settled)[len(self._context) :]
        self._advance(settled, unread=new[len(text) :])
        return text

    def generated_text(self, surplus: str = "") -> str:
        """All that was generated, without special tokens and without an unfinished last character.

        surplus: what the last characters are that do not belong to the text, "" if all do.
        """
        start = max(self._generated_from - 1, 0)
        context = self._tokenizer.decode(self._ids[start : self._generated_from], skip_special_tokens=True)
        text = self._tokenizer.decode(self._ids[start:], skip_special_tokens=True)[len(context) :]
        readable = text.rstrip(_REPLACEMENT)
        unfinished = len(self._unread) - len(self.held)
        text = readable + text[len(readable) + unfinished :]
        # A special token has left no text of which anything could be too much.
        ordinary = self._tokenizer.special_ids.isdisjoint(self._ids[-1:])
        return text.removesuffix(surplus) if ordinary else text

    def _last_whole(self) -> int:
        """After which generated token, or the prompt, a character was last complete: nothing was held back there."""
        end = len(self._ids)
        while end > self._generated_from and self._decode(max(end - _MAX_HELD, 0), end).endswith(_REPLACEMENT):
            end -= 1
        return end

    def _advance(self, read: int, unread: str) -> None:
        self._prefix, self._read = self._read, read
        self._context = self._decode(self._prefix, self._read)
        self._unread = unread

    def _decode(self, start: int, end: int) -> str:
        return self._tokenizer.decode(self._ids[start:end])
