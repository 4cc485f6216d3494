"""Probability mass in fixed point: sums that are exact, so that no result depends on the order of addition.

Floating-point scans and reductions add in an order that varies with the device, the kernel and the number of rows; the
token of a row must not. Multiples of 2**-40 add up to the same sum in any order, and a whole vocabulary fits int64.
Knows nothing of what the mass is used for.
"""

import torch
from torch import Tensor

_ONE = 2.0**40

_PREFIX = 1024
"""How many best entries are looked at first where looking is cheap: sorting a vocabulary costs ten times as much."""


def draw(probs: Tensor, uniforms: Tensor) -> Tensor:
    """Entries [R] int64 drawn in proportion to `probs` [R, vocab] fp32: the cumulative sum inverted at `uniforms` [R].

    Entries of probability 0 are never drawn: the first cumulative sum above a point below the total is one with mass.
    """
    cumulative = _fixed_point(probs).cumsum_(-1)
    point = (cumulative[:, -1] * uniforms.double()).long()
    found = torch.searchsorted(cumulative, point[:, None], right=True)[:, 0]
    # Only a row of NaN gets past the end; it must not take its neighbours down with an index error.
    return found.clamp(max=probs.shape[-1] - 1)


def cutoff(goodness: Tensor, probs: Tensor, share: Tensor) -> Tensor:
    """The goodness of the last entry needed to reach a share of the probability, from the best entry downwards.

    Args:
        goodness: what entries are ranked by, higher is better [R, vocab] fp32.
        probs: their probabilities, which add up to 1 [R, vocab] fp32.
        share: how much is to be reached, in (0, 1) [R, 1] fp64.

    Returns:
        The threshold [R, 1]: entries that are at least as good are the smallest such set, with ties at its end.
    """
    target = (share * _ONE).ceil().long()
    if not goodness.is_cpu or goodness.shape[-1] <= _PREFIX:
        return _last_needed(*goodness.sort(descending=True), probs, target)[0]
    # On the CPU a look at the result waits for nothing, so only rows that are too flat for the prefix are sorted.
    threshold, reached = _last_needed(*goodness.topk(_PREFIX), probs, target)
    flat = (reached < target).flatten().nonzero()[:, 0]
    if len(flat):
        threshold[flat] = _last_needed(*goodness[flat].sort(descending=True), probs[flat], target[flat])[0]
    return threshold


def exact_sum(values: Tensor) -> Tensor:
    """The sum over the vocabulary [R, 1] fp32 of `values` [R, vocab] fp32 of ordinary size, each cut to 2**-40."""
    return (_fixed_point(values).sum(-1, keepdim=True).double() / _ONE).float()


def _last_needed(ranked: Tensor, indices: Tensor, probs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The goodness [R, 1] at which `ranked` [R, n] entries reach `target`, and what they reach together [R, 1]."""
    cumulative = _fixed_point(probs.gather(-1, indices)).cumsum(-1)
    needed = (cumulative < target).sum(-1, keepdim=True).clamp(max=ranked.shape[-1] - 1)
    return ranked.gather(-1, needed), cumulative[:, -1:]


def _fixed_point(values: Tensor) -> Tensor:
    """Multiples of 2**-40 as int64; what is smaller becomes 0."""
    return (values * _ONE).long()
