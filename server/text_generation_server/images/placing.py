"""Files of images in prompts to what the engine takes: ids, and images with their places. Knows no messages."""

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from hashlib import blake2b
from pathlib import Path
from threading import Lock

from text_generation_server.errors import BadImage
from text_generation_server.images.family import Processor
from text_generation_server.images.prompts import Encoder, ImagePrompts
from text_generation_server.images.reading import read_image
from text_generation_server.images.registry import read_family
from text_generation_server.images.types import PlacedImage, PreparedImage

KEPT_BYTES = 2**28
"""Of prepared pixels that are kept for requests with the same file: conversations send theirs with every turn."""


def load_placer(directory: Path, tokenizer: Encoder) -> "ImagePlacer | None":
    """What prepares images for the model of a directory; None if it takes none. Raises StartError."""
    family = read_family(directory)
    return None if family is None else ImagePlacer(ImagePrompts(family, tokenizer))


class ImagePlacer:
    """Prepares a prompt's images. May be used by any thread."""

    def __init__(self, prompts: ImagePrompts) -> None:
        self._prompts = prompts
        self._prepared = PreparedImages(prompts.family.processor, KEPT_BYTES)

    def encode(
        self, texts: Sequence[str], files: Sequence[bytes], truncate: int, add_special_tokens: bool
    ) -> tuple[tuple[int, ...], tuple[PlacedImage, ...]]:
        """The ids of texts with an image between each two, and the images that truncation has left.

        Raises InvalidRequest, which says which image is to blame.
        """
        images = [self._prepare(number, file) for number, file in enumerate(files, start=1)]
        prompt = self._prompts.encode(texts, [image.original for image in images], truncate, add_special_tokens)
        return prompt.ids, tuple(PlacedImage(images[number], places) for number, places in prompt.positions.items())

    def _prepare(self, number: int, file: bytes) -> PreparedImage:
        try:
            return self._prepared.of(file)
        except BadImage as error:
            raise BadImage(f"image {number} of the prompt cannot be used: {error}") from error


class PreparedImages:
    """The images that were prepared last, by the content of their files, as many as `room` bytes hold."""

    def __init__(self, processor: Processor, room: int) -> None:
        self._processor = processor
        self._room = room
        self._used = 0
        self._kept: OrderedDict[bytes, PreparedImage] = OrderedDict()
        self._under_way: dict[bytes, Future[PreparedImage]] = {}
        self._lock = Lock()

    def of(self, file: bytes) -> PreparedImage:
        """The image of a file, for any thread: of several with the same file one prepares it. Raises BadImage."""
        key = blake2b(file, digest_size=32).digest()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            awaited = self._under_way.get(key)
            if awaited is None:
                made = self._under_way[key] = Future()
        return self._prepare(key, file, made) if awaited is None else awaited.result()

    def _prepare(self, key: bytes, file: bytes, made: "Future[PreparedImage]") -> PreparedImage:
        try:
            made.set_result(self._processor.prepare(read_image(file), key))
        except BaseException as error:
            made.set_exception(error)
        with self._lock:
            del self._under_way[key]
            if made.exception() is None:
                self._keep(key, made.result())
        return made.result()

    def _keep(self, key: bytes, made: PreparedImage) -> None:
        if key in self._kept or made.pixels.nbytes > self._room:
            return
        self._kept[key] = made
        self._used += made.pixels.nbytes
        while self._used > self._room:
            _, oldest = self._kept.popitem(last=False)
            self._used -= oldest.pixels.nbytes
