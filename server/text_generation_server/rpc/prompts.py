"""Prompts to token ids and images, while the call that brings them waits. Knows no messages and no engine."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from text_generation_server.errors import BadImage, InvalidRequest
from text_generation_server.images.markdown import is_data, read_data
from text_generation_server.images.placing import ImagePlacer
from text_generation_server.rpc.wire import Encoded, EncodedPrompt, Prompt
from text_generation_server.tokenization.fast import Text

IMAGE_THREADS = 4
"""Prompts with images that are prepared side by side: decoding and resizing hold no lock of Python's."""


class PromptTokenizer(Protocol):
    """The tokenizer as prompts need it; may be called from any thread."""

    def encode_all(self, texts: Sequence[Text], add_special_tokens: bool) -> list[list[int]]:
        """Ids of each text."""


class PromptEncoder:
    """Encodes prompts as their router means it. images: prepares theirs; None where the model takes none.

    `always_special`: the router never says that it wants special tokens, but does (docs/protocol.md#warming-up).
    """

    def __init__(self, tokenizer: PromptTokenizer, images: ImagePlacer | None = None) -> None:
        self._tokenizer = tokenizer
        self._images = images
        self._pool = ThreadPoolExecutor(IMAGE_THREADS, thread_name_prefix="images")
        self.always_special = False

    def __call__(self, prompts: Sequence[Prompt]) -> list[Encoded]:
        """Each prompt encoded, or for what reason it cannot be."""
        imaged = self._pool.map(self._with_images, [prompt for prompt in prompts if prompt.images])
        plain = iter(self._encode_plain([prompt for prompt in prompts if not prompt.ids and not prompt.images]))
        return [next(imaged) if prompt.images else _given(prompt) or next(plain) for prompt in prompts]

    def _encode_plain(self, prompts: Sequence[Prompt]) -> list[Encoded]:
        special = [self._special(prompt) for prompt in prompts]
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

    def _with_images(self, prompt: Prompt) -> Encoded:
        if self._images is None:
            return InvalidRequest("the prompt has an image, and this model takes text only: leave it out")
        if prompt.ids:
            return InvalidRequest("the prompt has an image, and came as token ids: send it as text")
        texts = [prompt.text, *(text for _, text in prompt.images)]
        try:
            files = [_content(image) for image, _ in prompt.images]
            return EncodedPrompt(*self._images.encode(texts, files, prompt.truncate, self._special(prompt)))
        except InvalidRequest as error:
            return error
        except Exception as error:  # as above
            return InvalidRequest(f"the prompt {prompt.text[:40]!r} cannot be tokenised: {error}")

    def _special(self, prompt: Prompt) -> bool:
        return prompt.add_special_tokens or self.always_special


def _content(image: bytes | str) -> bytes:
    """An image's file. Raises BadImage for a URL that would have to be fetched, which only routers do."""
    if isinstance(image, bytes):
        return image
    if not is_data(image):
        raise BadImage("the prompt has an image at a URL, and shards fetch nothing: send it as a data URL")
    return read_data(image)[0]


def _given(prompt: Prompt) -> EncodedPrompt | None:
    return EncodedPrompt(prompt.ids) if prompt.ids else None


def _checked(text: Text, ids: list[int]) -> Encoded:
    if not ids:
        return InvalidRequest(f"the prompt {text.text[:40]!r} has no tokens, expected at least one")
    return EncodedPrompt(tuple(ids))
