"""Reads the environment and checks the options against it. Knows nothing of models, devices or child processes.

No other module of this package reads the environment, but typer looks for options there too (command.py).
"""

import dataclasses
import ipaddress
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import get_type_hints

from text_generation_launcher.errors import OptionError
from text_generation_launcher.options import EMBEDDED, OF_ROUTER, Options
from text_generation_router.options import Option, flag, table, variable

_EVERY_ADDRESS = "0.0.0.0"


class LogLevel(StrEnum):
    """What is logged; the names are those of the shard's --logger-level, in upper case there."""

    OFF = "off"
    ERROR = "error"
    WARN = "warn"
    INFO = "info"
    DEBUG = "debug"
    TRACE = "trace"

    def shows(self, other: "LogLevel") -> bool:
        """Whether lines of the other level are logged at this one."""
        return list(LogLevel).index(other) <= list(LogLevel).index(self)


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment as the launcher understands it, and all of it for the children."""

    variables: Mapping[str, str]
    log_level: LogLevel
    search_path: str
    visible_devices: str | None
    attention: str | None
    prefix_caching: str | None
    compute_type: str | None
    hub_token: str | None
    wiggle_room: float


@dataclass(frozen=True, slots=True)
class Origin:
    """Which options did not take their default, by where their value was found."""

    command_line: frozenset[str]
    environment: frozenset[str]

    @property
    def given(self) -> frozenset[str]:
        """The options someone asked for."""
        return self.command_line | self.environment


def read_environment(variables: Mapping[str, str] | None = None) -> Environment:
    """The process environment, or the variables given. Raises OptionError for a TGI_WIGGLE_ROOM that is no number."""
    env = dict(os.environ if variables is None else variables)
    return Environment(
        variables=env,
        log_level=_log_level(env.get("LOG_LEVEL", "")),
        search_path=env.get("PATH", os.defpath),
        visible_devices=_visible_devices(env),
        attention=env.get("ATTENTION"),
        prefix_caching=env.get("PREFIX_CACHING", env.get("USE_PREFIX_CACHING")),
        compute_type=env.get("COMPUTE_TYPE"),
        hub_token=env.get("HF_API_TOKEN"),
        wiggle_room=_share(env, "TGI_WIGGLE_ROOM", 0.95),
    )


def checked(options: Options, origin: Origin, environment: Environment) -> tuple[Options, list[str]]:
    """The options to go by, and warnings. Raises OptionError for an option that cannot act as asked."""
    for name in origin.environment:
        _check_boolean(name, environment.variables)
    for name, option in table(Options).items():
        if option.refused and (options.router == EMBEDDED or name not in OF_ROUTER):
            _check_refused(name, option, getattr(options, name))
    return _with_address(options, origin)


def python_program() -> str:
    """The interpreter that runs this; children in Python get the same."""
    return sys.executable


def search_path() -> str:
    """Where programs are looked for."""
    return os.environ.get("PATH", os.defpath)


def _log_level(text: str) -> LogLevel:
    # Other texts are filters of a router's tracing library, which are passed to it and mean nothing here.
    return LogLevel(text.lower()) if text.lower() in list(LogLevel) else LogLevel.INFO


def _visible_devices(env: Mapping[str, str]) -> str | None:
    for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"):
        if name in env:
            return env[name]
    return None


def _share(env: Mapping[str, str], name: str, default: float) -> float:
    try:
        share = float(env.get(name, default))
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise OptionError(f"{name} is {env[name]!r}; it must be a number between 0 and 1")
    return share


def _check_boolean(name: str, env: Mapping[str, str]) -> None:
    """Other spellings of true would end a router that reads the same variable (docs/launcher.md#options)."""
    if get_type_hints(Options)[name] is bool and env.get(variable(name)) not in ("true", "false"):
        raise OptionError(
            f"{variable(name)} is {env.get(variable(name))!r}; it must be true or false, in these letters"
        )


def _check_refused(name: str, option: Option, value: object) -> None:
    if value != option.default:
        shown = "" if value is True else f" {value}"
        raise OptionError(f"{flag(name)}{shown} is not supported: {option.refused}")


def _with_address(options: Options, origin: Origin) -> tuple[Options, list[str]]:
    try:
        ipaddress.ip_address(options.hostname)
    except ValueError:
        if "hostname" not in origin.environment:
            raise OptionError(
                f"--hostname is {options.hostname!r}; it must be an IP address such as 127.0.0.1 or {_EVERY_ADDRESS}"
            ) from None
        # Containers set HOSTNAME to their own name, which nobody meant as an address to listen on.
        warning = f"HOSTNAME is {options.hostname!r}, which is no IP address: listening on {_EVERY_ADDRESS}"
        return dataclasses.replace(options, hostname=_EVERY_ADDRESS), [warning]
    return options, []
