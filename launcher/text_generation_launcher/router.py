"""The router: ours or another that speaks the protocol, with the flags it has. Knows nothing of the shards."""

import asyncio
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from text_generation_launcher.child import Child
from text_generation_launcher.context import LaunchContext
from text_generation_launcher.download import Downloaded
from text_generation_launcher.embedded_python import EmbeddedPython
from text_generation_launcher.errors import LaunchError
from text_generation_launcher.options import OF_ROUTER
from text_generation_launcher.places import Places
from text_generation_launcher.polling import wait_until
from text_generation_launcher.programs import find_router
from text_generation_launcher.resolve import ResolvedArgs
from text_generation_router.options import flag, is_path
from text_generation_server.reservations.holders import belongs_to, listeners, listens

_PROBE_SECONDS = 60
_ANSWER_SECONDS = 10.0
_METRICS_PORT = 9000
# The start of an option's entry in a help text, of clap's kind or in a frame.
_LISTED_FLAG = re.compile(r"^[\s│|*]*(?:-\w,?\s+)?(--[a-z][a-z0-9-]*)", re.MULTILINE)
_ACT_ELSEWHERE_TOO = {"revision", "trust_remote_code", "max_input_tokens", "max_total_tokens", "max_batch_size"}
_ACT_ELSEWHERE_TOO |= {"hostname", "port", "json_output", "usage_stats", "graceful_termination_timeout"}
_WIDE = {"COLUMNS": "240", "TERMINAL_WIDTH": "240", "NO_COLOR": "1", "TERM": "dumb"}


@dataclass(frozen=True, slots=True)
class RouterProgram:
    """How the router is started and which flags it takes; None: all we have (it is ours). python: inside another's."""

    command: tuple[str, ...]
    flags: frozenset[str] | None
    python: EmbeddedPython | None = None

    def takes(self, name: str) -> bool:
        """Whether it has the option's flag."""
        return self.flags is None or flag(name) in self.flags

    @property
    def needs_numeric_limits(self) -> bool:
        """Routers up to 2.4.0, which lack --payload-limit, need numbers from the start (docs/launcher.md#limits)."""
        return self.flags is not None and not self.takes("payload_limit")

    @property
    def fixed_metrics_port(self) -> int | None:
        """The port for metrics of routers that open one and have no option for it: 2.3 to 3.2, which know usage_stats.

        They do so at every address, while they start, and end if they cannot.
        """
        fixed = self.flags is not None and self.takes("usage_stats") and not self.takes("prometheus_port")
        return _METRICS_PORT if fixed else None


def choose_router(launch: LaunchContext) -> RouterProgram:
    """The router asked for. Raises LaunchError if it cannot be run, or lacks an option that only it could act on."""
    if launch.embedded_router:
        return RouterProgram(launch.programs.router, None)
    path = find_router(launch.options.router, launch.environment.search_path)
    flags = _listed_flags(path, launch.environment.variables)
    program = RouterProgram((path,), flags, EmbeddedPython.of(path))
    lacking = [name for name in launch.given & set(OF_ROUTER) - _ACT_ELSEWHERE_TOO if not program.takes(name)]
    if lacking:
        names = ", ".join(sorted(map(flag, lacking)))
        raise LaunchError(f"{path} has no {names} (by its --help); leave it out or take another --router")
    return program


def router_command(
    launch: LaunchContext, program: RouterProgram, places: Places, resolved: ResolvedArgs, model: Downloaded
) -> list[str]:
    """The command of docs/launcher.md#children, of the flags the program takes."""
    options, limits = launch.options, resolved.limits
    values: dict[str, object] = {name: getattr(options, name) for name in OF_ROUTER}
    values |= {
        "master_shard_uds_path": places.socket_path(0),
        "tokenizer_name": model.path or options.model_id,
        "revision": options.revision if model.path is None else None,
        "served_model_name": options.served_model_name or options.model_id,
        "max_input_tokens": limits.max_input_tokens,
        "max_total_tokens": limits.max_total_tokens,
        "max_batch_prefill_tokens": limits.max_batch_prefill_tokens,
        "prometheus_port": places.metrics_port,
        "tokenizer_config_path": _absolute(options.tokenizer_config_path),
        "api_key_file": _absolute(options.api_key_file),
        "chat_template": _chat_template(options.chat_template),
    }
    # Ours logs what the launcher shows in its own way; the key goes by the environment.
    values |= {"json_output": True} if launch.embedded_router else _silence(launch)
    del values["api_key"]
    return [
        *program.command,
        *(word for name, value in values.items() if program.takes(name) for word in _words(name, value)),
    ]


async def wait_until_healthy(launch: LaunchContext, router: Child, waiting: Callable[[], None]) -> str:
    """Wait until the router's /health answers 200, which is after warm-up; its URL. `waiting`: every ten seconds.

    Nobody else is asked: while it is known that others listen at the port, the router does not.
    """
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(launch.options.hostname, launch.options.hostname)
    await wait_until(lambda: _healthy(router.pid, host, launch.options.port, launch.options.api_key), waiting)
    return f"http://{f'[{host}]' if ':' in host else host}:{launch.options.port}"


def _listed_flags(path: str, variables: Mapping[str, str]) -> frozenset[str]:
    try:
        answer = subprocess.run(
            [path, "--help"],
            env={**variables, **_WIDE},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROBE_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"{path} --help could not be run ({error}); give another --router") from None
    flags = frozenset(_LISTED_FLAG.findall(answer.stdout))
    if "--master-shard-uds-path" not in flags:
        lines = tuple((answer.stdout + answer.stderr).splitlines()[-20:])
        raise LaunchError(f"{path} is no text-generation-router: its --help lists no --master-shard-uds-path", lines)
    return flags


def _silence(launch: LaunchContext) -> dict[str, object]:
    """Routers of another maker report their use unless told not to; 2.2.0 has flags of its own for that."""
    level = launch.options.usage_stats if "usage_stats" in launch.given else "off"
    off = level == "off"
    return {"usage_stats": level, "disable_usage_stats": off, "disable_crash_reports": off}


def _words(name: str, value: object) -> list[str]:
    if value is None or value is False:
        return []
    if value is True:
        return [flag(name)]
    values = value if isinstance(value, list) else [value]
    return [word for item in values for word in (flag(name), str(item))]


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).absolute())


def _chat_template(given: str | None) -> str | None:
    return _absolute(given) if given is not None and is_path(given) else given


async def _healthy(router: int, host: str, port: int, api_key: str | None) -> bool:
    if await _others_listen(router, port):
        return False
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            healthy = await _health_status(host, port, api_key) == 200
    except (OSError, ValueError, IndexError, TimeoutError):
        return False
    return healthy and not await _others_listen(router, port)  # who may have come since we looked


async def _others_listen(router: int, port: int) -> bool:
    if listens(router, port):
        return False
    known = await asyncio.to_thread(listeners, port)  # a look at every process of the host
    return bool(known) and not any(belongs_to(pid, router) for pid in known)


async def _health_status(host: str, port: int, api_key: str | None) -> int:
    key = f"Authorization: Bearer {api_key}\r\n" if api_key else ""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET /health HTTP/1.1\r\nHost: {host}:{port}\r\n{key}Connection: close\r\n\r\n".encode())
        await writer.drain()
        return int((await reader.readline()).split()[1])
    finally:
        writer.close()
