"""Making sampling parameters from the wire safe: zero-filled or non-finite values become neutral.

Knows nothing of protobuf; routers enforce these ranges themselves, other clients need not.
"""

from dataclasses import replace
from math import isfinite

from text_generation_server.sampling.params import SamplingParams

STRONGEST = 1e9
"""Stronger penalties are taken as this one: they rank tokens alike, and scores do not overflow."""


def sanitised(params: SamplingParams) -> SamplingParams:
    """`params` with every meaningless value replaced by "off" (docs/protocol.md#choosing-tokens).

    A message whose fields were never set holds zeros, which are not the neutral values: temperature <= 0 means greedy,
    top_p <= 0, typical_p <= 0 and repetition_penalty <= 0 mean off. NaN and infinity are treated like these.
    """
    repeats = _positive(params.repetition_penalty)
    cleaned = replace(
        params,
        top_k=max(params.top_k, 0),
        top_p=_mass(params.top_p),
        typical_p=_mass(params.typical_p),
        repetition_penalty=_bounded(params.repetition_penalty, 1 / STRONGEST) if repeats else 1.0,
        frequency_penalty=_signed(params.frequency_penalty),
        presence_penalty=_signed(params.presence_penalty),
        count_penalty=_signed(params.count_penalty),
        logit_bias=tuple((token, _signed(bias)) for token, bias in params.logit_bias),
        min_p=params.min_p if 0.0 < params.min_p <= 1.0 else 0.0,
    )
    return cleaned if _positive(params.temperature) else _greedy(cleaned)


def _greedy(params: SamplingParams) -> SamplingParams:
    return replace(params, temperature=1.0, top_k=0, top_p=1.0, typical_p=1.0, min_p=0.0, do_sample=False)


def _mass(value: float) -> float:
    return value if 0.0 < value < 1.0 else 1.0


def _signed(value: float) -> float:
    return _bounded(value, -STRONGEST) if isfinite(value) else 0.0


def _bounded(value: float, least: float) -> float:
    return min(max(value, least), STRONGEST)


def _positive(value: float) -> bool:
    return isfinite(value) and value > 0.0
