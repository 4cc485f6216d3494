"""Prompts as the shards read them: texts and images to token ids. Knows no other rules that requests keep."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from text_generation_router.errors import InvalidInput
from text_generation_router.images.files import ImageFiles
from text_generation_router.images.types import ImageFile
from text_generation_router.tokenizer import PromptTokenizer
from text_generation_server.errors import BadImage, InvalidRequest, excerpt
from text_generation_server.images.content import content_ids
from text_generation_server.images.markdown import split
from text_generation_server.images.prompts import ImagedPrompt, ImagePrompts


class ReadPrompt(NamedTuple):
    """ids: with a negative number of its own where an image is. chunks: texts and images in order, if there are any."""

    ids: tuple[int, ...]
    chunks: tuple[str | ImageFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Images:
    """What takes images where a model does."""

    prompts: ImagePrompts
    files: ImageFiles


class PromptReader:
    """Reads prompts. images: None where the model takes none."""

    def __init__(self, tokenizer: PromptTokenizer, images: Images | None = None) -> None:
        self._tokenizer = tokenizer
        self._images = images

    @property
    def image_mark(self) -> str | None:
        """What stands in the prompt of a chat for an image; None where the model takes none."""
        return None if self._images is None else self._images.prompts.family.mark

    async def read(
        self, text: str, truncate: int, add_special_tokens: bool, urls: Sequence[str] | None = None
    ) -> ReadPrompt:
        """The prompt, of at most `truncate` ids unless that is 0.

        urls: of the images that stand where the text has marks. None: images are markdown in the text.
        Raises InvalidInput.
        """
        if self._images is None:
            return ReadPrompt(await self._encode(text, truncate, add_special_tokens))
        texts, found = split(text) if urls is None else (self._at_marks(text, urls), urls)
        if not found:
            return ReadPrompt(await self._encode(text, truncate, add_special_tokens))
        return await self._with_images(self._images, texts, found, truncate, add_special_tokens)

    def close(self) -> None:
        """End the threads."""
        self._tokenizer.close()
        if self._images is not None:
            self._images.files.close()

    async def _with_images(
        self, images: Images, texts: Sequence[str], urls: Sequence[str], truncate: int, special: bool
    ) -> ReadPrompt:
        files = await images.files.get(urls)
        sizes = [file.size for file in files]

        def encode() -> ImagedPrompt:
            return images.prompts.encode(texts, sizes, truncate, special)

        try:
            prompt = await self._tokenizer.run(encode)
        except BadImage as error:
            raise InvalidInput(f"an image cannot be used: {error}") from error
        except InvalidRequest as error:
            raise InvalidInput(str(error)) from error
        except Exception as error:  # as below
            raise InvalidInput(f"tokenizer error {excerpt(str(error))}") from error
        shown = ((files[number].digest, places) for number, places in prompt.positions.items())
        behind = ((file, text) for file, text in zip(files, texts[1:], strict=True))
        chunks = (texts[0], *(part for pair in behind for part in pair))
        return ReadPrompt(content_ids(prompt.ids, shown), tuple(part for part in chunks if part != ""))

    def _at_marks(self, text: str, urls: Sequence[str]) -> list[str]:
        mark = self.image_mark
        if not urls or mark is None:
            return [text]
        texts = text.split(mark)
        if len(texts) != len(urls) + 1:
            raise InvalidInput(
                f"`messages` has {len(urls)} images, and the model's chat template has made {len(texts) - 1} places "
                f"for them, each {mark}: it may have none for images, or that may be in a text"
            )
        return texts

    async def _encode(self, text: str, truncate: int, add_special_tokens: bool) -> tuple[int, ...]:
        try:
            return await self._tokenizer.encode(text, truncate, add_special_tokens)
        except Exception as error:  # tokenizers raise what they like
            raise InvalidInput(f"tokenizer error {excerpt(str(error))}") from error
