"""Decides step by step whether guessing pays. Host only; knows neither models nor devices, only what steps took.

Either the next step is launched before the last one's tokens are known, or it verifies guesses that follow them: the
first keeps the device busy, the second makes several tokens a step where text repeats. Guesses are compared with what
came also while none are verified, so how many would have come true is always known; what a step takes is measured.
"""

from collections.abc import Callable
from collections.abc import Sequence as Ordered
from dataclasses import dataclass
from typing import Protocol

from text_generation_server.engine.drafts import Acceptance
from text_generation_server.engine.launched_step import LaunchedStep
from text_generation_server.engine.sequence import Sequence

SMOOTHING = 0.2
"""Weight of the newest step in an average."""

WORTH_TRYING = 0.25
"""Guesses that come true, a sequence and step, for which a step that verifies them is tried to see what it takes."""

REMEMBERED_STEPS = 256
"""After so many steps without guesses it is forgotten what those with guesses took: contexts have grown."""


class Guessing(Protocol):
    """Whether the next step of `sequences` should verify guesses, and what became of steps."""

    def pays(self, sequences: Ordered[Sequence]) -> bool: ...

    def count(self, drafted: int, accepted: int) -> None: ...

    def note(self, rows: int, verified: bool) -> None: ...

    def pause(self) -> None: ...


@dataclass(slots=True)
class StepTimes:
    """Seconds a step without and with guesses, averaged; None where not measured. plain_steps: since the last with."""

    plain: float | None = None
    verifying: float | None = None
    plain_steps: int = 0

    def add(self, seconds: float, verified: bool) -> None:
        """Count a step."""
        if verified:
            self.verifying, self.plain_steps = _smoothed(self.verifying, seconds), 0
            return
        self.plain = _smoothed(self.plain, seconds)
        self.plain_steps += 1
        if self.plain_steps > REMEMBERED_STEPS:
            self.verifying = None


class MeasuredGain:
    """Guesses where more tokens a second are to be expected so, at about this number of sequences."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last: float | None = None
        self._times: dict[int, StepTimes] = {}
        self._acceptance = Acceptance()

    def pays(self, sequences: Ordered[Sequence]) -> bool:
        """Whether the next step should verify guesses."""
        accepted = sum(s.drafts.usually_accepted for s in sequences if s.drafts is not None) / len(sequences)
        times = self._times_of(len(sequences))
        if times.plain is None:
            return False
        if times.verifying is None:
            return accepted >= WORTH_TRYING
        return (1 + accepted) * times.plain > times.verifying

    def count(self, drafted: int, accepted: int) -> None:
        """Add what came of one sequence's guesses."""
        self._acceptance.count(drafted, accepted)

    def note(self, rows: int, verified: bool) -> None:
        """A step of so many sequences, none with a prompt, has just been answered."""
        now = self._clock()
        if self._last is not None:
            self._times_of(rows).add(now - self._last, verified)
        self._last = now

    def pause(self) -> None:
        """What comes next does not follow at once, or is no such step."""
        self._last = None

    def _times_of(self, rows: int) -> StepTimes:
        return self._times.setdefault(rows.bit_length(), StepTimes())


class GuessPace:
    """How many tokens steps guess: up to `most` where `gain` says that it pays, none at all where that is 0."""

    def __init__(self, most: int, gain: Guessing) -> None:
        self._most = most
        self._gain = gain

    def guesses(self, sequences: Ordered[Sequence]) -> int:
        """Most tokens that each is to guess for the next step."""
        return self._most if self._most and self._gain.pays(sequences) else 0

    def count(self, drafted: int, accepted: int) -> None:
        """Add what came of one sequence's guesses."""
        self._gain.count(drafted, accepted)

    def note(self, steps: Ordered[LaunchedStep]) -> None:
        """These have just been answered, by one call."""
        if self._most and len(steps) == 1 and not steps[0].has_prompts:
            self._gain.note(len(steps[0].sequences), any(steps[0].drafted))
        else:
            self.pause()

    def pause(self) -> None:
        """What comes next does not follow at once."""
        self._gain.pause()


def _smoothed(average: float | None, value: float) -> float:
    return value if average is None else average + SMOOTHING * (value - average)
