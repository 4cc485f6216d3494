"""What attention makes of products of queries and keys, for every kernel alike. Knows no layout of either.

Scores are kept in units of ln 2, so that their exponentials are powers of two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import e, log2

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2_E = log2(e)

LOWEST = tl.constexpr(-1e38)
"""Below every score. Finite: a query that has seen no key yet fades nothing by infinity − infinity."""

EVERYTHING = 1 << 30
"""A window that nothing is outside of."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What queries see and how distance counts, for kernels.

    window: newest keys a query sees, itself included.
    slopes: [H] float32 in units of ln 2, of linear biases; None for none.
    softcap: bound of scores, in the same unit; None for none.
    """

    window: int
    slopes: Tensor | None
    softcap: float | None

    @classmethod
    def of(
        cls, window: int | None, slopes: Sequence[float] | None, softcap: float | None, device: torch.device
    ) -> "Rule":
        """From what a model says: no window, slopes or bound is None, and units are natural."""
        return cls(
            EVERYTHING if window is None else window,
            None if slopes is None else torch.tensor(slopes, dtype=torch.float32, device=device) * LOG2_E,
            None if softcap is None else softcap * LOG2_E,
        )


@triton.jit
def ruled(scores: tl.tensor, distance: tl.tensor, slope: tl.tensor, softcap: float) -> tl.tensor:
    """Scaled products bounded by tanh, then biased."""
    if softcap is not None:
        scores = softcap * (2 * tl.sigmoid(2 * scores / softcap) - 1)
    if slope is not None:
        scores -= slope * distance
    return scores
