"""Makes the masks of steps in a thread of its own, while the device computes what they will mask.

A step is launched before the tokens of the one before it are known. So its masks are a future: this thread waits for
those tokens, moves each sequence's grammar past its own, and computes which tokens may follow. Steps are handled in the
order of their launch, which is the order in which they run; a mask therefore only ever waits for earlier steps.
"""

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property

import numpy as np
from llguidance import LLExecutor, LLMatcher
from numpy.typing import NDArray

from text_generation_server.grammar.state import GrammarState, TokenSource

WORD_BITS = 32
_MAX_THREADS = 4

Masks = NDArray[np.int32]
"""Tokens that may be chosen [G, ceil(vocab / 32)]: bit t % 32 of word t // 32, lowest first."""


class MaskMaker:
    """The thread that makes masks for a vocabulary of `vocab_size` logits."""

    def __init__(self, vocab_size: int) -> None:
        self._words = -(-vocab_size // WORD_BITS)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="grammar-masks")

    def start(self, states: Sequence[GrammarState]) -> Future[Masks]:
        """The masks of a step's rows, one for each state; to be called when the step is launched, and once.

        The future raises what the step raised that should have chosen the tokens before. A row whose grammar failed
        has everything allowed: its sequence ends when the step is read.
        """
        return self._thread.submit(self._make, [(state, state.newest) for state in states])

    @cached_property
    def _executor(self) -> LLExecutor:
        return LLExecutor(num_threads=min(_MAX_THREADS, os.cpu_count() or 1))

    def _make(self, moves: list[tuple[GrammarState, TokenSource | None]]) -> Masks:
        masks = np.full((len(moves), self._words), -1, dtype=np.int32)
        followed: list[tuple[LLMatcher, int]] = []
        for row, (state, newest) in enumerate(moves):
            matcher = state.advanced(newest)
            if matcher is not None:
                followed.append((matcher, row))
        if followed:
            self._executor.unsafe_compute_mask_ptr(followed, masks.ctypes.data, masks.strides[0], len(masks))
        for state, _ in moves:
            state.settle()
        return masks
