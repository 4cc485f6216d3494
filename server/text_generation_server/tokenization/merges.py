"""Byte-pair merges from a vocabulary in order of preference. Knows no file format.

SentencePiece and TikToken keep no list of merges: they join the neighbours whose union is preferred most, again and
again. The same result comes from merges in the order of their unions: every way to cut a piece in two is one merge.
"""

from collections.abc import Collection

_SHORTEST = 2


def merges(pieces: Collection[str]) -> list[tuple[str, str]]:
    """The pairs to join, the first ones first. `pieces` are distinct, those preferred most at the front.

    Of the cuts of one piece that with the longest left part is first, which is what "leftmost first" comes to.
    """
    known = frozenset(pieces)
    long_enough = (piece for piece in pieces if len(piece) >= _SHORTEST)
    cuts = ((piece[:at], piece[at:]) for piece in long_enough for at in range(len(piece) - 1, 0, -1))
    return [(left, right) for left, right in cuts if left in known and right in known]
