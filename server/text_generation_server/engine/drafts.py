"""Guesses how a sequence goes on from what it has said before: n-gram lookup ("prompt lookup decoding"). Host only.

Guesses cost nothing but the positions that verify them. Knows no models: others verify.
"""

from collections.abc import Sequence

from loguru import logger

REPORT_EVERY = 1000
"""Guessed tokens between two lines of log."""

LONGEST = 3
SHORTEST = 2
"""Tokens that must repeat before the rest is expected to. Single tokens repeat too often to mean anything."""


SMOOTHING = 0.25
"""Weight of the newest guesses in what is said of them."""


class NgramDrafts:
    """Remembers where each n-gram of a sequence last ended; lookups and additions take constant time.

    most: tokens guessed at once. usually_accepted: how many of them come true, on average of late.
    """

    def __init__(self, prompt_ids: Sequence[int], most: int) -> None:
        self.usually_accepted = 0.0
        self._most = most
        self._ids: list[int] = []
        self._ends: dict[tuple[int, ...], int] = {}
        self._expected: tuple[int, ...] = ()
        self._came_true = 0
        self._add(prompt_ids)
        self._expected = self.propose(most)

    def extend(self, ids: Sequence[int]) -> None:
        """Add what the sequence says next, and see which guesses that makes true, whether they were verified or not."""
        for token in ids:
            self._add((token,))
            if self._came_true < len(self._expected) and token == self._expected[self._came_true]:
                self._came_true += 1
                continue
            # What a step would have made of them ends with this token.
            self.usually_accepted += SMOOTHING * (self._came_true - self.usually_accepted)
            self._expected, self._came_true = self.propose(self._most), 0

    def propose(self, count: int) -> tuple[int, ...]:
        """Up to `count` tokens that followed the longest earlier occurrence of the sequence's end; () without one."""
        for length in range(LONGEST, SHORTEST - 1, -1):
            end = self._ends.get(tuple(self._ids[-length:])) if length <= len(self._ids) else None
            if end is not None:
                return tuple(self._ids[end : end + count])
        return ()

    def _add(self, ids: Sequence[int]) -> None:
        """The n-grams of the last position count once something follows them."""
        for token in ids:
            end = len(self._ids)
            for length in range(SHORTEST, min(LONGEST, end) + 1):
                self._ends[tuple(self._ids[end - length :])] = end
            self._ids.append(token)


class Acceptance:
    """Counts how many guesses came true, and says so in the log now and then."""

    def __init__(self) -> None:
        self._drafted = 0
        self._accepted = 0

    def count(self, drafted: int, accepted: int) -> None:
        """Add one sequence's step."""
        self._drafted += drafted
        self._accepted += accepted
        if self._drafted >= REPORT_EVERY:
            share = self._accepted / self._drafted
            report = logger.bind(phase="speculation", drafted=self._drafted, accepted=self._accepted)
            report.info("Speculation: {} of {} guessed tokens accepted ({:.0%})", self._accepted, self._drafted, share)
            self._drafted = self._accepted = 0
