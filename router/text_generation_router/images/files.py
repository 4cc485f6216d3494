"""The images of a request as files that can be read: got from where their URLs say, and checked. Knows no model."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import blake2b
from typing import TypeVar

from text_generation_router.errors import InvalidInput
from text_generation_router.images.fetching import Fetcher, Room
from text_generation_router.images.types import ImageFile
from text_generation_server.errors import BadImage
from text_generation_server.images.markdown import is_data, read_data
from text_generation_server.images.reading import MAX_PIXELS, count_pixels, read_image

T = TypeVar("T")

_READERS = 2
"""Images that are decoded at once: each may take as much memory as `MAX_PIXELS` do, whoever still waits for it."""

_REMEMBERED = 4096
"""Images that are not read again when they come again, as with every turn of a conversation."""


class ImageFiles:
    """Gets the images of requests. most: that one may have."""

    def __init__(self, fetcher: Fetcher, most: int) -> None:
        self._fetcher = fetcher
        self._most = most
        self._sizes: OrderedDict[bytes, tuple[int, int]] = OrderedDict()
        self._pool = ThreadPoolExecutor(_READERS, thread_name_prefix="images")

    async def get(self, urls: Sequence[str]) -> list[ImageFile]:
        """The files at these URLs, or in them. Raises InvalidInput, which says what is wrong with which."""
        if len(urls) > self._most:
            raise InvalidInput(f"a request may have {self._most} images (--max-images). Given: {len(urls)}")
        room = self._fetcher.room()
        got = await self._each(self._content(url, room) for url in urls)
        pixels = sum(await self._each(self._run(partial(count_pixels, data)) for data, _ in got))
        if pixels > MAX_PIXELS:
            raise InvalidInput(f"the images of a request may have {MAX_PIXELS} pixels in all. Given: {pixels}")
        return await self._each(self._file(data, kind) for data, kind in got)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    async def _each(self, steps: Iterable[Awaitable[T]]) -> list[T]:
        """The results for all images, side by side; if one is bad, the others are given up."""
        under_way = [asyncio.ensure_future(_told(number, step)) for number, step in enumerate(steps, start=1)]
        try:
            return list(await asyncio.gather(*under_way))
        finally:
            for one in under_way:
                one.cancel()

    async def _content(self, url: str, room: Room) -> tuple[bytes, str]:
        return await (self._run(partial(read_data, url)) if is_data(url) else self._fetcher.fetch(url, room))

    async def _file(self, data: bytes, kind: str) -> ImageFile:
        digest, size = await self._run(partial(self._read, data))
        self._sizes[digest] = size
        if len(self._sizes) > _REMEMBERED:
            self._sizes.popitem(last=False)
        return ImageFile(data, kind, size, digest)

    def _read(self, data: bytes) -> tuple[bytes, tuple[int, int]]:
        """The digest and the size of an image, all of which is read: shards would refuse it later."""
        digest = blake2b(data, digest_size=32).digest()
        size = self._sizes.get(digest)
        if size is None:
            image = read_image(data)
            size = image.height, image.width
        return digest, size

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


async def _told(number: int, step: Awaitable[T]) -> T:
    try:
        return await step
    except BadImage as error:
        raise InvalidInput(f"image {number} cannot be used: {error}") from error
