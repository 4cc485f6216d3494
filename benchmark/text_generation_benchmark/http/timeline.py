"""One request on the clock. Knows neither how it was sent nor statistics."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(slots=True)
class Timeline:
    """Times are seconds of `time.perf_counter`.

    due: when it was to be sent, which every duration counts from: what waits for its turn waits for the server.
    times: of each event with text, alike where several came at once. end: when the answer was complete, or had failed.
    tokens: the server's count, else that of the events. asked_tokens: what the answer should have had.
    text: the whole answer.
    """

    due: float
    asked_tokens: int
    sent: float
    times: "array[float]" = field(default_factory=lambda: array("d"))  # which the garbage collector need not look at
    end: float = 0.0
    tokens: int = 0
    prompt_tokens: int | None = None
    error: str | None = None
    text: str = ""

    @property
    def ttft_s(self) -> float:
        """Until the first text."""
        return self.times[0] - self.due

    @property
    def e2e_s(self) -> float:
        """Until the answer was complete."""
        return self.end - self.due

    @property
    def tpot_s(self) -> float | None:
        """The mean time of a token after the first; of the tokens that came with the first event, none."""
        return (self.times[-1] - self.times[0]) / (self.tokens - 1) if self.tokens > 1 else None

    @property
    def late_s(self) -> float:
        """How long after it was due it was sent."""
        return self.sent - self.due

    def gaps_s(self) -> Iterator[float]:
        """From each event with text to the next; 0 where they came at once."""
        return (after - before for before, after in pairwise(self.times))

    def tokens_until(self, moment: float) -> float:
        """How many of the tokens had come; each event counts for as many as the answer has for each."""
        if not self.times:
            return 0.0
        return self.tokens / len(self.times) * sum(time <= moment for time in self.times)
