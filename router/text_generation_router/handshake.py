"""Start-up with the shards: discovery, a clean cache, their facts, warm-up, and the limits that follow.

Knows nothing of HTTP.
"""

from dataclasses import dataclass

from loguru import logger

from text_generation_router.errors import ShardError, StartError
from text_generation_router.settings import Settings
from text_generation_router.shards.client import ShardedClient
from text_generation_router.types import ShardInfo, TokenLimits, WarmupAnswer

_DEFAULT_CACHE_TOKENS = 16000


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of shards that are warmed up."""

    info: ShardInfo
    limits: TokenLimits


@dataclass(frozen=True, slots=True)
class Ready:
    """Shards that are warmed up. max_batch_size: requests of a batch, None for no bound."""

    shards: ShardedClient
    facts: Facts
    max_batch_size: int | None = None


LARGEST_PREFILL = 2**24
"""Prompt tokens of a warm-up: more than any step computes, and few enough for one message."""


async def shake_hands(settings: Settings) -> Ready:
    """Find the shards, and warm them up. May take minutes. Raises StartError."""
    tokens = settings.max_batch_prefill_tokens
    _require(
        tokens <= LARGEST_PREFILL,
        f"--max-batch-prefill-tokens is {tokens}, more than the {LARGEST_PREFILL} that a warm-up can try; lower it",
    )
    if settings.await_shards:
        await ShardedClient.appear(settings.master_shard_uds_path)
    shards = await ShardedClient.connect(settings.master_shard_uds_path)
    try:
        await shards.clear_cache()
        info = await shards.info()
        _check_info(info)
        logger.info("Warming up with {} tokens", settings.max_batch_prefill_tokens)
        answer = await shards.warmup(
            settings.max_batch_prefill_tokens,
            settings.max_input_tokens,
            settings.max_total_tokens,
            settings.max_batch_size,
        )
        limits = limits_after(answer, info, settings)
    except BaseException as error:
        await shards.close()
        if isinstance(error, ShardError):
            raise StartError(f"the shards could not be warmed up: {error}") from error
        raise
    logger.info(
        "Cache of {} tokens; prompts up to {}, with answer up to {} tokens",
        limits.max_batch_total_tokens,
        limits.max_input_tokens,
        limits.max_total_tokens,
    )
    return Ready(shards, Facts(info, limits), most_requests(answer, settings))


def limits_after(answer: WarmupAnswer, info: ShardInfo, settings: Settings) -> TokenLimits:
    """What warm-up found, checked against what the user asked for. Raises StartError."""
    for flag, wanted, effective in (
        ("--max-input-tokens", settings.max_input_tokens, answer.max_input_tokens),
        ("--max-total-tokens", settings.max_total_tokens, answer.max_total_tokens),
    ):
        _require(wanted in (None, effective), f"{flag} is {wanted}, but the shards can only do {effective}")
    prefill, total = settings.max_batch_prefill_tokens, answer.max_total_tokens
    cache = answer.supported_total
    if cache is None:
        cache = settings.max_batch_total_tokens or max(_DEFAULT_CACHE_TOKENS, total, prefill)
    elif settings.max_batch_total_tokens is not None:
        logger.warning("--max-batch-total-tokens is ignored: the shards measured room for {} tokens", cache)
    _require(total <= cache, f"not enough memory for --max-total-tokens {total}: the cache holds {cache} tokens")
    _require(
        prefill <= cache, f"not enough memory for --max-batch-prefill-tokens {prefill}: the cache holds {cache} tokens"
    )
    _require(
        answer.max_input_tokens < total,
        f"--max-input-tokens {answer.max_input_tokens} must be less than --max-total-tokens {total}",
    )
    return _fitted(answer.max_input_tokens, total, prefill, cache, info, settings)


def most_requests(answer: WarmupAnswer, settings: Settings) -> int | None:
    """Of a batch: what the user asked for, and never more than the shards have room for."""
    return min((most for most in (answer.most_requests, settings.max_batch_size) if most is not None), default=None)


def _fitted(longest: int, total: int, prefill: int, cache: int, info: ShardInfo, settings: Settings) -> TokenLimits:
    """Limits under which every request fits into the empty cache; what the user did not choose is lowered to them."""
    fitting = min(total, _largest_request(cache, info))
    if not info.support_chunking:
        _require(
            (settings.max_input_tokens or 0) <= prefill,
            f"--max-input-tokens {settings.max_input_tokens} is more than --max-batch-prefill-tokens {prefill}, "
            "and the shards do not take prompts in pieces: raise the second",
        )
        longest = min(longest, prefill)
    longest_fitting = min(longest, fitting - 1)
    for flag, wanted, possible in (
        ("--max-total-tokens", settings.max_total_tokens, fitting),
        ("--max-input-tokens", settings.max_input_tokens, longest_fitting),
    ):
        _require(
            wanted in (None, possible),
            f"{flag} {wanted} does not fit into a cache of {cache} tokens: at most {possible}",
        )
    _require(longest_fitting > 0, f"a cache of {cache} tokens is too small to serve anything")
    return TokenLimits(longest_fitting, fitting, prefill, cache)


def _largest_request(cache: int, info: ShardInfo) -> int:
    """Prompt and answer that fit into an empty cache, of which block 0 is never used; a last token needs no place."""
    return (cache // info.block_size - 1) * info.block_size + 1 - info.speculate


def _check_info(info: ShardInfo) -> None:
    _require(not info.requires_padding, "the shards want padded batches, and this router only does paged ones")
    _require(
        info.window_size is None, "the shards want cyclic slots for a sliding window, which this router does not do"
    )
    _require(info.block_size > 0, f"the shards report a block size of {info.block_size}, expected at least 1")


def _require(kept: bool, problem: str) -> None:
    if not kept:
        raise StartError(problem)
