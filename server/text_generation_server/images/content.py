"""Prompts by their content: what prefixes are compared by, so that images count and not what stands for them."""

from collections.abc import Iterable, Sequence

Places = Sequence[int]


def content_ids(ids: Sequence[int], images: Iterable[tuple[bytes, Places]]) -> tuple[int, ...]:
    """The ids, but where an image is a negative number of its own. images: the digest and positions of each.

    All positions of an image have the same number: what comes before them tells which is the first.
    """
    named = list(ids)
    for digest, places in images:
        number = -1 - int.from_bytes(digest[:8], "big")
        for place in places:
            named[place] = number
    return tuple(named)
