"""Sampling parameters as clients send them: the rules for each, and the same in the shards' terms.

Knows nothing of prompts, lengths and grammars.
"""

import secrets
from collections.abc import Set as AbstractSet

from text_generation_router.errors import InvalidInput
from text_generation_router.schemas import GenerateParameters
from text_generation_router.types import Sampling

STRONGEST_BIAS = 100
"""OpenAI's bound: it forbids a token, or lets no other be chosen."""

_EXTENSIONS = ("min_p", "presence_penalty", "count_penalty", "logit_bias", "min_new_tokens", "stop_token_ids")


def require(kept: bool, rule: str) -> None:
    """Raises InvalidInput with the rule if it is not kept."""
    if not kept:
        raise InvalidInput(rule)


def require_known(extension: str, name: str, known: AbstractSet[str]) -> None:
    """Raises InvalidInput for a field of this name where the shards do not know what it asks for."""
    require(extension in known, f"`{name}` is not known to the shards that are served here; leave it out")


def check_extensions(p: GenerateParameters, known: AbstractSet[str]) -> None:
    """Refuse what not all shards of this protocol do, if these do not."""
    for name in _EXTENSIONS:
        if getattr(p, name):
            require_known(name, name, known)


def check_values(p: GenerateParameters) -> None:
    """The rules for values by themselves."""
    wishes = (p.temperature, p.top_k, p.top_p, p.typical_p, p.min_p or None)
    sampled = bool(p.do_sample) or any(wish is not None for wish in wishes)
    require((p.best_of or 1) == 1 or sampled, "you must use sampling when `best_of` is > 1")
    require(p.temperature is None or p.temperature > 0, "`temperature` must be strictly positive")
    require(p.repetition_penalty is None or p.repetition_penalty > 0, "`repetition_penalty` must be strictly positive")
    for name in ("frequency_penalty", "count_penalty", "presence_penalty"):
        value = getattr(p, name)
        require(value is None or -2 <= value <= 2, f"`{name}` must be >= -2.0 and <= 2.0")
    require(p.top_p is None or 0 < p.top_p <= 1, "`top_p` must be > 0.0 and <= 1.0")
    require(p.typical_p is None or 0 < p.typical_p < 1, "`typical_p` must be > 0.0 and < 1.0")
    require(p.min_p is None or 0 <= p.min_p <= 1, "`min_p` must be >= 0.0 and <= 1.0")
    require(p.top_k is None or p.top_k > 0, "`top_k` must be strictly positive")
    require(p.timeout is None or p.timeout > 0, "`timeout` must be strictly positive")
    for token, bias in (p.logit_bias or {}).items():
        require(
            abs(bias) <= STRONGEST_BIAS,
            f"`logit_bias` must be >= -{STRONGEST_BIAS} and <= {STRONGEST_BIAS}. Given: {bias:g} for token {token}",
        )


def random_seed() -> int:
    """A seed for a request that did not bring one."""
    return secrets.randbits(64)


def sampling(p: GenerateParameters) -> Sampling:
    """In the shards' terms; without a grammar."""
    return Sampling(
        seed=random_seed() if p.seed is None else p.seed,
        do_sample=bool(p.do_sample),
        temperature=1.0 if p.temperature is None else p.temperature,
        top_k=p.top_k or 0,
        top_p=1.0 if p.top_p is None else p.top_p,
        typical_p=1.0 if p.typical_p is None else p.typical_p,
        repetition_penalty=1.0 if p.repetition_penalty is None else p.repetition_penalty,
        frequency_penalty=p.frequency_penalty or 0.0,
        watermark=bool(p.watermark),
        min_p=p.min_p or 0.0,
        presence_penalty=p.presence_penalty or 0.0,
        count_penalty=p.count_penalty or 0.0,
        logit_bias=tuple((p.logit_bias or {}).items()),
    )
