"""The shards of one model: a process a rank, ready when its socket accepts. Knows nothing of the router."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from text_generation_launcher.child import Child, spawn
from text_generation_launcher.download import Downloaded, load_format
from text_generation_launcher.environments import shard_environment
from text_generation_launcher.launch import Launch
from text_generation_launcher.polling import wait_until
from text_generation_launcher.resolve import ResolvedArgs
from text_generation_launcher.startup import StartUp


def shard_command(launch: Launch, resolved: ResolvedArgs, model: Downloaded) -> list[str]:
    """The command of protocol §9.4; the same for every rank."""
    options = launch.options
    command = [*launch.programs.server, "serve", model.path or options.model_id]
    command += ["--uds-path", launch.socket_prefix]
    command += ["--logger-level", launch.environment.log_level.upper(), "--json-output"]
    if options.trust_remote_code:
        command.append("--trust-remote-code")
    if resolved.num_shard > 1:
        command.append("--sharded")
    if options.dtype is not None:
        command += ["--dtype", options.dtype]
    command += load_format(options)
    if options.speculate:
        command += ["--speculate", str(options.speculate)]
    if options.revision is not None and model.path is None:
        command += ["--revision", options.revision]
    if options.longest_prompt is not None:
        command += ["--max-input-tokens", str(options.longest_prompt)]
    if options.deterministic:
        command.append("--deterministic")
    return [*command, *(["--disable-flashinfer"] if options.disable_flashinfer else [])]


def spawn_shard(launch: Launch, resolved: ResolvedArgs, model: Downloaded, rank: int, start_up: StartUp) -> Child:
    """Start one rank."""
    name = f"shard-{rank}"
    return spawn(
        name,
        shard_command(launch, resolved, model),
        shard_environment(launch, resolved, rank),
        python=launch.programs.python,
        stdout=start_up.stdout_of(name),
        stderr=start_up.stderr_of(name),
    )


async def wait_until_accepting(path: str, waiting: Callable[[], None]) -> None:
    """Wait until a server accepts connections on a Unix socket; `waiting` is called every ten seconds."""
    await wait_until(lambda: _accepts(path), waiting)


def remove_socket(path: str) -> None:
    """A shard that was killed could not do it itself."""
    Path(path).unlink(missing_ok=True)


async def _accepts(path: str) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.close()
    return True
