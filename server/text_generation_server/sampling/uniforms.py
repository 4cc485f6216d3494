"""The random numbers behind sampled tokens: one uniform per (seed, token index), made on the host.

Counter-based, so there is no generator state to carry through batches, and every rank, device and batch composition
sees the same number. Knows nothing of logits.
"""

_MASK = 2**64 - 1
_STEP = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, odd: successive counters are spread over all 64 bits
_RESOLUTION_BITS = 24


def uniform(seed: int, index: int) -> float:
    """A number in [0, 1) for the `index`-th generated token (from 0) of a request with this u64 `seed`.

    The value is a multiple of 2**-24: exact in float32, so it never rounds up to 1 on its way to a device.
    The stream of a seed is SplitMix64 (Steele, Lea and Flood, 2014) started at the hashed seed, because neighbouring
    seeds (0, 1, 2, …) are what clients send.
    """
    start = _mixed(seed + _STEP)
    return (_mixed(start + (index + 1) * _STEP) >> (64 - _RESOLUTION_BITS)) * 2.0**-_RESOLUTION_BITS


def _mixed(word: int) -> int:
    word &= _MASK
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
    return word ^ (word >> 31)
