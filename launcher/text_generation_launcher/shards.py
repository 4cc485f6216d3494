"""The shards of one model: a process a rank, ready when its socket accepts. Knows nothing of the router."""

import asyncio
from collections.abc import Callable

from text_generation_launcher.child import Child, spawn
from text_generation_launcher.context import LaunchContext
from text_generation_launcher.download import Downloaded, load_format
from text_generation_launcher.environments import shard_environment
from text_generation_launcher.options import NO_LORA_IDS
from text_generation_launcher.places import Places
from text_generation_launcher.polling import wait_until
from text_generation_launcher.resolve import ResolvedArgs
from text_generation_launcher.startup import StartUp
from text_generation_server.choices import KvCacheDtype
from text_generation_server.reservations.holders import belongs_to, listener


def shard_command(launch: LaunchContext, places: Places, resolved: ResolvedArgs, model: Downloaded) -> list[str]:
    """The command of docs/launcher.md#children; the same for every rank."""
    options = launch.options
    command = [*launch.programs.server, "serve", model.path or options.model_id]
    command += ["--uds-path", places.socket_prefix]
    command += ["--logger-level", launch.environment.log_level.upper(), "--json-output"]
    if options.lora_ids != NO_LORA_IDS:
        command += ["--lora-ids", options.lora_ids]
    if options.trust_remote_code:
        command.append("--trust-remote-code")
    if resolved.num_shard > 1:
        command.append("--sharded")
    if options.dtype is not None:
        command += ["--dtype", options.dtype]
    if options.quantize is not None:
        command += ["--quantize", options.quantize]
    if options.kv_cache_dtype is not KvCacheDtype.AUTO:
        command += ["--kv-cache-dtype", options.kv_cache_dtype]
    command += load_format(options)
    if options.speculate:
        command += ["--speculate", str(options.speculate)]
    if options.revision is not None and model.path is None:
        command += ["--revision", options.revision]
    if options.longest_prompt is not None:
        command += ["--max-input-tokens", str(options.longest_prompt)]
    if options.otlp_endpoint is not None:
        command += ["--otlp-endpoint", options.otlp_endpoint]
        if "otlp_service_name" in launch.given:  # otherwise the default, which tells shards from routers
            command += ["--otlp-service-name", options.otlp_service_name]
    if options.deterministic:
        command.append("--deterministic")
    if options.max_mixed_tokens is not None:
        command += ["--max-mixed-tokens", str(options.max_mixed_tokens)]
    return [*command, *(["--disable-flashinfer"] if options.disable_flashinfer else [])]


def spawn_shard(
    launch: LaunchContext, places: Places, resolved: ResolvedArgs, model: Downloaded, rank: int, start_up: StartUp
) -> Child:
    """Start one rank."""
    name = f"shard-{rank}"
    return spawn(
        name,
        shard_command(launch, places, resolved, model),
        shard_environment(launch, resolved, rank, places.master_port),
        python=launch.programs.python,
        stdout=start_up.stdout_of(name),
        stderr=start_up.stderr_of(name),
    )


async def wait_until_accepting(path: str, shard: Child, waiting: Callable[[], None]) -> None:
    """Wait until this shard accepts connections on a Unix socket; `waiting` is called every ten seconds."""
    await wait_until(lambda: _accepts(path, shard.pid), waiting)


async def _accepts(path: str, shard: int) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    pid = listener(writer.get_extra_info("socket"))
    writer.close()
    return pid is None or belongs_to(pid, shard)
