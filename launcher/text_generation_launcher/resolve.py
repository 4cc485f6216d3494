"""Decides what the options leave open, from config.json and the devices, with the reason for each choice.

Pure functions: reads no file, no environment, starts nothing. The rules: docs/launcher.md#number-of-shards, #limits.
"""

from dataclasses import dataclass

from text_generation_launcher.errors import LaunchError
from text_generation_launcher.hardware import Hardware
from text_generation_launcher.modelfacts import ModelFacts
from text_generation_launcher.options import Options, Switch
from text_generation_launcher.prefill_budget import card_name, compute_optimal_tokens, memory_tokens
from text_generation_launcher.settings import Environment

_PREFILL_TOKENS = 4096
_PROCESSOR_PREFILL_TOKENS = 1024
"""Without a GPU a step of 4096 tokens holds up every running request for many seconds; chunks of this size do not."""
_LEAST_OPTIMAL = 100
_OLD_ROUTER_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class TokenLimits:
    """Token limits of requests and prefills; None leaves one to warm-up."""

    max_input_tokens: int | None
    max_total_tokens: int | None
    max_batch_prefill_tokens: int


@dataclass(frozen=True, slots=True)
class ResolvedArgs:
    """What shards and router are started with, and why: a sentence for each choice that was not the user's."""

    num_shard: int
    attention: str
    prefix_caching: str
    compute_type: str | None
    limits: TokenLimits
    reasons: tuple[str, ...]


def resolve(
    options: Options,
    environment: Environment,
    hardware: Hardware,
    model: ModelFacts,
    num_shard: int,
    *,
    numeric_limits: bool,
) -> ResolvedArgs:
    """Everything that is not written in the options. `numeric_limits`: the router cannot leave limits to warm-up."""
    attention, prefix_caching = _attention(environment)
    limits, why_limits = _limits(options, environment, hardware, model, num_shard)
    if numeric_limits:
        limits = _numeric(limits, options, model)
    compute_type = environment.compute_type
    if compute_type is None and hardware.gpus:
        compute_type = f"{num_shard}-{card_name(hardware.gpus[0])}"
    why = f"attention {attention}, prefix caching {prefix_caching}"
    return ResolvedArgs(num_shard, attention, prefix_caching, compute_type, limits, (why, why_limits))


def check_limits(options: Options) -> None:
    """Raises LaunchError for limits that contradict each other."""
    if options.max_input_tokens is not None and options.max_input_length is not None:
        raise LaunchError(
            "--max-input-tokens and --max-input-length are two names of one option; give one (look at the "
            "variables MAX_INPUT_TOKENS and MAX_INPUT_LENGTH too)"
        )
    longest, total = options.longest_prompt, options.max_total_tokens
    if longest is not None and total is not None and longest >= total:
        raise LaunchError(
            f"--max-input-tokens is {longest} and --max-total-tokens {total}; the total needs room for new tokens, "
            "so it must be larger"
        )


def resolve_num_shard(options: Options, environment: Environment, hardware: Hardware) -> tuple[int, str]:
    """Number of ranks, and why (docs/launcher.md#number-of-shards).

    Raises LaunchError for one rank with --sharded true, or less than one.
    """
    devices = _device_count(environment, hardware)
    if options.num_shard is not None:
        count, why = options.num_shard, "given"
    elif options.sharded is Switch.FALSE:
        count, why = 1, "not sharded"
    else:
        count, why = devices or 1, "one a visible device" if devices else "no variable names devices"
    if options.sharded is Switch.TRUE and count <= 1:
        raise LaunchError(
            f"--sharded true needs two ranks or more and found {count}; "
            "give --num-shard, or name the devices in CUDA_VISIBLE_DEVICES"
        )
    if count < 1:
        raise LaunchError(f"--num-shard is {count}; it must be 1 or more")
    return count, f"{count} {'shard' if count == 1 else 'shards'}: {why}"


def _device_count(environment: Environment, hardware: Hardware) -> int | None:
    visible = environment.visible_devices
    if visible in ("all", "void"):
        return len(hardware.gpus) or None
    return None if visible is None else len(visible.split(","))


def _attention(environment: Environment) -> tuple[str, str]:
    """ATTENTION and PREFIX_CACHING: a contract on block sizes between router and shard, whatever the model.

    The shard's kernels keep it for every model that it serves, and it tells routers itself where a model has prompts
    that cannot be shared. Only blocks of `paged` never are.
    """
    attention = environment.attention or "flashinfer"
    return attention, environment.prefix_caching or ("0" if attention == "paged" else "true")


def _limits(
    options: Options, environment: Environment, hardware: Hardware, model: ModelFacts, num_shard: int
) -> tuple[TokenLimits, str]:
    tokens, why = options.max_batch_prefill_tokens, "given"
    if tokens is None:
        tokens, why = _prefill_tokens(options, environment, hardware, model, num_shard)
    limits = TokenLimits(options.longest_prompt, options.max_total_tokens, tokens)
    return limits, f"max_batch_prefill_tokens {tokens}: {why}"


def _prefill_tokens(
    options: Options, environment: Environment, hardware: Hardware, model: ModelFacts, num_shard: int
) -> tuple[int, str]:
    """The smallest of what the device computes in time, what the model was trained on, and what memory holds."""
    choices = [(_PREFILL_TOKENS, "default")]
    if not hardware.gpus:
        choices.append((_PROCESSOR_PREFILL_TOKENS, "no GPU"))
    elif model.spec is not None:
        gpu, share = hardware.gpus[0], options.cuda_memory_fraction * environment.wiggle_room
        optimal = compute_optimal_tokens(model.spec, gpu, num_shard)
        if optimal is not None and optimal > _LEAST_OPTIMAL:
            choices = [(optimal, "compute-optimal")]
        fitting = memory_tokens(model.spec, int(gpu.memory_bytes * num_shard * share))
        if fitting > 0:
            choices.append((fitting, "memory"))
    if model.max_positions is not None:
        choices.append((model.max_positions.tokens, model.max_positions.source))
    return min(choices)


def _numeric(limits: TokenLimits, options: Options, model: ModelFacts) -> TokenLimits:
    """Numbers for a router that cannot learn limits from warm-up (docs/launcher.md#routers-of-other-makers)."""
    positions = model.max_positions.tokens if model.max_positions else _OLD_ROUTER_TOKENS
    total = limits.max_total_tokens or max(min(positions, _OLD_ROUTER_TOKENS), (limits.max_input_tokens or 0) + 1)
    longest = limits.max_input_tokens or total - 1
    prefill = options.max_batch_prefill_tokens
    if prefill is None:
        prefill = options.max_batch_size * longest if options.max_batch_size else longest + 50
    return TokenLimits(longest, total, prefill)
