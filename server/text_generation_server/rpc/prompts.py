"""Prompts to token ids, in the thread of the call that brings them. Knows no messages and no engine."""

from collections.abc import Sequence
from typing import Protocol

from text_generation_server.errors import InvalidRequest
from text_generation_server.rpc.wire import Encoded, Prompt
from text_generation_server.tokenization.fast import Text


class PromptTokenizer(Protocol):
    """The tokenizer as prompts need it; may be called from any thread."""

    def encode_all(self, texts: Sequence[Text], add_special_tokens: bool) -> list[list[int]]:
        """Ids of each text."""


class PromptEncoder:
    """Encodes prompts as their router means it.

    `always_special`: the router never says that it wants special tokens, but does (docs/protocol.md#warming-up).
    """

    def __init__(self, tokenizer: PromptTokenizer) -> None:
        self._tokenizer = tokenizer
        self.always_special = False

    def __call__(self, prompts: Sequence[Prompt]) -> list[Encoded]:
        """Ids of each prompt, or for what reason there are none."""
        if any(prompt.ids for prompt in prompts):
            encoded = iter(self([prompt for prompt in prompts if not prompt.ids]))
            return [prompt.ids or next(encoded) for prompt in prompts]
        special = [prompt.add_special_tokens or self.always_special for prompt in prompts]
        texts = [Text(prompt.text, prompt.truncate) for prompt in prompts]
        if len(set(special)) == 1:
            return self._encode(texts, special[0])
        return [one for text, add in zip(texts, special, strict=True) for one in self._encode([text], add)]

    def _encode(self, texts: Sequence[Text], special: bool) -> list[Encoded]:
        try:
            ids = self._tokenizer.encode_all(texts, special)
        except Exception as error:  # what tokenizers raise has no common class
            if len(texts) > 1:
                return [one for text in texts for one in self._encode([text], special)]
            return [InvalidRequest(f"the prompt {texts[0].text[:40]!r} cannot be tokenised: {error}")]
        return [_checked(text, found) for text, found in zip(texts, ids, strict=True)]


def _checked(text: Text, ids: list[int]) -> Encoded:
    return tuple(ids) or InvalidRequest(f"the prompt {text.text[:40]!r} has no tokens, expected at least one")
