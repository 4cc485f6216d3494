"""An image of a request, once it is here. Knows neither where it was nor what is done with it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file that is an image. kind: its content type. size: (height, width) upright, in pixels.

    digest: of its content.
    """

    data: bytes
    kind: str
    size: tuple[int, int]
    digest: bytes
