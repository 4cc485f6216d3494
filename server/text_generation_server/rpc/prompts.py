"""Prompts to token ids, in the thread of the call that brings them. Knows no messages and no engine."""

from typing import Protocol

from text_generation_server.errors import InvalidRequest
from text_generation_server.rpc.wire import Prompt


class PromptTokenizer(Protocol):
    """The tokenizer as prompts need it; may be called from any thread."""

    def encode(self, text: str, truncate: int = 0, add_special_tokens: bool = True) -> list[int]:
        """Ids of `text`, at most `truncate` of them if that is not 0: special tokens and the last of the rest."""


class PromptEncoder:
    """Encodes prompts as their router means it.

    `always_special`: the router never says that it wants special tokens, but does (protocol §0).
    """

    def __init__(self, tokenizer: PromptTokenizer) -> None:
        self._tokenizer = tokenizer
        self.always_special = False

    def __call__(self, prompt: Prompt) -> tuple[int, ...]:
        """Ids of the prompt.

        Raises:
            InvalidRequest: there are none, or the tokenizer failed.
        """
        special = prompt.add_special_tokens or self.always_special
        try:
            ids = self._tokenizer.encode(prompt.text, prompt.truncate, special)
        except Exception as error:  # what tokenizers raise has no common class
            raise InvalidRequest(f"the prompt {prompt.text[:40]!r} cannot be tokenised: {error}") from error
        if not ids:
            raise InvalidRequest(f"the prompt {prompt.text[:40]!r} has no tokens, expected at least one")
        return tuple(ids)
