"""The images of a request as files that can be read: got from where their URLs say, and checked. Knows no model."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b
from typing import Protocol, TypeVar

from text_generation_router.errors import InvalidInput
from text_generation_router.images.fetching import Fetcher
from text_generation_router.images.types import ImageFile
from text_generation_server.errors import BadImage
from text_generation_server.images.markdown import is_data, read_data
from text_generation_server.images.reading import read_image

T = TypeVar("T")

_REMEMBERED = 4096
"""Images that are not read again when they come again, as with every turn of a conversation: 48 bytes each."""


class Run(Protocol):
    """Runs work in a thread, so that the event loop goes on meanwhile."""

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]: ...


class ImageFiles:
    """Gets the images of requests. most: that one may have."""

    def __init__(self, fetcher: Fetcher, most: int, run: Run) -> None:
        self._fetcher = fetcher
        self._most = most
        self._run = run
        self._sizes: OrderedDict[bytes, tuple[int, int]] = OrderedDict()

    async def get(self, urls: Sequence[str]) -> list[ImageFile]:
        """The files at these URLs, or in them. Raises InvalidInput, which says what is wrong with which."""
        if len(urls) > self._most:
            raise InvalidInput(f"a request may have {self._most} images (--max-images). Given: {len(urls)}")
        under_way = [asyncio.ensure_future(self._file(number, url)) for number, url in enumerate(urls, start=1)]
        try:
            return list(await asyncio.gather(*under_way))
        finally:
            for one in under_way:
                one.cancel()

    async def _file(self, number: int, url: str) -> ImageFile:
        try:
            data, kind = await self._content(url)
            digest, size = await self._run(lambda: self._read(data))
        except BadImage as error:
            raise InvalidInput(f"image {number} cannot be used: {error}") from error
        self._sizes[digest] = size
        if len(self._sizes) > _REMEMBERED:
            self._sizes.popitem(last=False)
        return ImageFile(data, kind, size, digest)

    async def _content(self, url: str) -> tuple[bytes, str]:
        return await (self._run(lambda: read_data(url)) if is_data(url) else self._fetcher.fetch(url))

    def _read(self, data: bytes) -> tuple[bytes, tuple[int, int]]:
        """The digest and the size of an image, all of which is read: shards would refuse it later."""
        digest = blake2b(data, digest_size=32).digest()
        size = self._sizes.get(digest)
        if size is None:
            image = read_image(data)
            size = image.height, image.width
        return digest, size
