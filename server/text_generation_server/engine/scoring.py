"""How likely a prompt's tokens were, and which others might have stood there: by raw logits. Knows no requests."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, Self

from torch import Tensor

from text_generation_server.device.copies import to_host, upload


class PromptScores(NamedTuple):
    """Of positions of one prompt: natural-log probabilities of their tokens, and the best tokens with theirs.

    top: empty where none are wanted.
    """

    logprobs: list[float]
    top: list[list[tuple[int, float]]]


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """What the scored rows of a step want.

    targets: of each row the token that really follows each position. top: how many of the best are told of each.
    """

    targets: tuple[tuple[int, ...], ...] = ()
    top: tuple[int, ...] = ()


NOTHING_SCORED = ScoredRows()
"""Of steps without scored rows."""


@dataclass(frozen=True, slots=True)
class HostScores:
    """Scores on their way to the host: readable when an event recorded behind `start` has passed.

    logprobs: [T] fp32 of all positions of all rows. best, best_logprobs: [T, k], None where no row wants any.
    """

    rows: ScoredRows
    logprobs: Tensor
    best: Tensor | None
    best_logprobs: Tensor | None

    @classmethod
    def start(cls, logits: Tensor, rows: ScoredRows) -> Self | None:
        """Score by the last logits of `logits` [L, vocab], of any float dtype; None if there is nothing to score."""
        if not rows.targets:
            return None
        (flat,) = upload(logits.device, [token for targets in rows.targets for token in targets])
        logprobs = logits[-len(flat) :].float().log_softmax(-1)
        told = to_host(logprobs.gather(1, flat[:, None])[:, 0])
        width = min(max(rows.top), logits.shape[-1])
        if not width:
            return cls(rows, told, None, None)
        best = logprobs.topk(width)
        return cls(rows, told, to_host(best.indices), to_host(best.values))

    def read(self) -> tuple[PromptScores, ...]:
        """The scores of each row. Does not wait: before its time it reads anything."""
        logprobs, best = iter(self.logprobs.tolist()), self._best()
        read = []
        for targets, wanted in zip(self.rows.targets, self.rows.top, strict=True):
            told, top = list(islice(logprobs, len(targets))), list(islice(best, len(targets)))
            read.append(PromptScores(told, [one[:wanted] for one in top] if wanted else []))
        return tuple(read)

    def _best(self) -> Iterator[list[tuple[int, float]]]:
        if self.best is None or self.best_logprobs is None:
            return iter(())
        pairs = zip(self.best.tolist(), self.best_logprobs.tolist(), strict=True)
        return (list(zip(ids, logprobs, strict=True)) for ids, logprobs in pairs)
