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

UNITS = tl.constexpr(LOG2_E)
"""The same in kernels."""

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
    biases: [H, 2 · D + 1] float32 in that unit, contiguous, added for keys from D tokens behind a query to D before it,
        and by the ends to those further away; None for none.
    causal: whether keys behind a query are hidden.
    """

    window: int
    slopes: Tensor | None
    softcap: float | None
    biases: Tensor | None = None
    causal: bool = True

    @property
    def farthest(self) -> int:
        """D of `biases`."""
        return 0 if self.biases is None else self.biases.shape[1] // 2

    @classmethod
    def of(
        cls,
        window: int | None,
        slopes: Sequence[float] | None,
        softcap: float | None,
        device: torch.device,
        biases: Tensor | None = None,
        causal: bool = True,
    ) -> "Rule":
        """From what a model says: no window, slopes, bound or biases are None, and units are natural."""
        return cls(
            EVERYTHING if window is None else window,
            None if slopes is None else torch.tensor(slopes, dtype=torch.float32, device=device) * LOG2_E,
            None if softcap is None else softcap * LOG2_E,
            None if biases is None else (biases.float() * LOG2_E).contiguous(),
            causal,
        )


@triton.jit
def ruled(
    scores: tl.tensor, distance: tl.tensor, slope: tl.tensor, softcap: float, bias: tl.tensor, farthest: int
) -> tl.tensor:
    """Scaled products bounded by tanh, then biased. bias: of no distance; those up to the farthest lie around it."""
    if softcap is not None:
        scores = softcap * (2 * tl.sigmoid(2 * scores / softcap) - 1)
    if slope is not None:
        scores -= slope * distance
    if bias is not None:
        scores += tl.load(bias + tl.maximum(tl.minimum(distance, farthest), -farthest))
    return scores
