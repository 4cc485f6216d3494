"""Follows a grammar for a few tokens, since some compile but cannot be followed. Knows no sequences and no model."""

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray


def follow(matcher: LLMatcher, vocabulary: LLTokenizer, tokens: int) -> None:
    """Take up to `tokens` allowed tokens, or as many as it takes until the answer is complete or the library gives up.

    The library finds many of its limits (rows too long, too many states, definitions that lead nowhere) only here.
    Afterwards `matcher.is_error()` tells; the matcher is of no other use.
    """
    for _ in range(tokens):
        mask = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        if matcher.is_error():
            return
        token = _first_visible(mask, vocabulary)
        if token is None:
            return
        matcher.consume_token(token)
        if matcher.is_error() or matcher.is_stopped():
            return


def _first_visible(mask: NDArray[np.uint8], vocabulary: LLTokenizer) -> int | None:
    """The lowest id whose text is not blank, as blanks lead nowhere; the lowest ids are bytes, which try most steps."""
    for token in np.unpackbits(mask, count=vocabulary.vocab_size, bitorder="little").nonzero()[0].tolist():
        if not vocabulary.is_special_token(token) and vocabulary.decode_bytes([token]).strip():
            return int(token)
    return None
