"""The green lists of a watermark (Kirchenbauer et al., arXiv 2301.10226), computed where the tokens are.

Whether a token is green depends on the token before it alone, and is the same on every device: a detector needs only
these functions. Knows nothing of scores.
"""

import torch
from torch import Tensor

HASH_KEY = 15485863
"""The paper's: the millionth prime number."""

_MASK = 2**32 - 1


def green_lists(previous: Tensor, vocab_size: int, size: int) -> Tensor:
    """Which tokens are green behind each token of `previous` [R] int64: [R, vocab_size] bool, exactly `size` in a row.

    The green tokens are those that come first in a permutation of the vocabulary seeded by the hash key times the
    previous token: a token's place in it is the rank of its 32-bit hash, and no two tokens have the same hash.
    """
    if size < 1:
        return torch.zeros(len(previous), vocab_size, dtype=torch.bool, device=previous.device)
    seeds = _mixed(previous * HASH_KEY & _MASK)
    hashes = _mixed(torch.arange(vocab_size, device=previous.device) ^ seeds[:, None])
    return hashes <= hashes.kthvalue(size, dim=-1, keepdim=True).values


def _mixed(words: Tensor) -> Tensor:
    """A bijection of 32-bit words, held in int64, that spreads every bit over all (MurmurHash3's finaliser)."""
    words = (words ^ (words >> 16)) * 0x85EBCA6B & _MASK
    words = (words ^ (words >> 13)) * 0xC2B2AE35 & _MASK
    return words ^ (words >> 16)
