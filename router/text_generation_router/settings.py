"""The router's options, read from flags and environment into one frozen value.

The only module that reads the environment. Knows nothing of what the options do.
"""

import argparse
import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from types import UnionType
from typing import Any, get_args, get_type_hints

from text_generation_router.errors import InvalidSettings
from text_generation_router.options import Option, RouterOptions, flag, option, row, table, variable


def _changed(name: str, default: Any, **known: Any) -> Any:
    """The option of `RouterOptions`, with another default."""
    return row(replace(table(RouterOptions)[name], default=default, **known))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(RouterOptions):
    """Every option of the command line, and those without help, which are variables only."""

    waiting_served_ratio: float = _changed("waiting_served_ratio", 1.2)
    max_batch_prefill_tokens: int = _changed("max_batch_prefill_tokens", 4096)
    port: int = _changed("port", 3000, help="HTTP port; 0 takes a free one", least=0)
    master_shard_uds_path: str = option("/tmp/text-generation-server-0", "Socket of the first shard")
    tokenizer_name: str = option("bigscience/bloom", "Model directory or hub id")

    compute_type: str = option("gpu+optimized", "")
    await_shards: bool = option(False, "")
    log_level: str = option("info", "")


def settings_of_command(arguments: Sequence[str]) -> Settings:
    """The settings of this process, started with `arguments`. Raises as `read_settings`."""
    return read_settings(arguments, os.environ)


def read_settings(arguments: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Flags win over variables, variables over defaults.

    Raises InvalidSettings for values that cannot be used; argparse exits with 2 on unknown flags.
    """
    types = get_type_hints(Settings)
    values = {
        name: _from_text(kind, environ[variable(name)], variable(name))
        for name, kind in types.items()
        if environ.get(variable(name), "") != ""
    }
    values |= vars(_parser().parse_args(arguments))
    settings = Settings(**values)
    for name, known in table(Settings).items():
        _check(name, known, getattr(settings, name))
    longest, total = settings.max_input_tokens, settings.max_total_tokens
    if longest is not None and total is not None and longest >= total:
        raise InvalidSettings(f"--max-input-tokens {longest} must be less than --max-total-tokens {total}")
    return settings


def listen_address(hostname: str) -> str | None:
    """`hostname` if it is an IP address. Containers set HOSTNAME to a name, which is no wish to listen there."""
    try:
        return str(ipaddress.ip_address(hostname))
    except ValueError:
        return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="text-generation-router",
        description="Batches HTTP requests for text-generation shards. Every option is also an environment variable.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    types = get_type_hints(Settings)
    for name, known in table(Settings).items():
        kind, flags = types[name], [flag(name), *([known.short] if known.short else [])]
        if not known.help:
            continue
        if kind is bool:
            parser.add_argument(*flags, action="store_true", help=known.help)
        else:
            repeated: dict[str, Any] = {"action": "append"} if _repeats(kind) else {}
            shown = f"{known.help} [{known.default}]" if known.default else known.help
            parser.add_argument(*flags, type=_scalar(kind), help=shown, **repeated)
    return parser


def _repeats(kind: Any) -> bool:
    return list[str] in get_args(kind)


def _scalar(kind: Any) -> Any:
    """The type that turns one argument into a value: `int` for `int | None`, `str` for `list[str] | None`."""
    if _repeats(kind):
        return str
    return next(part for part in get_args(kind) if part is not type(None)) if isinstance(kind, UnionType) else kind


def _from_text(kind: Any, text: str, name: str) -> Any:
    if kind is bool:
        if text not in ("true", "false"):
            raise InvalidSettings(f"{name} is {text!r}, expected `true` or `false`")
        return text == "true"
    if _repeats(kind):
        return [part.strip() for part in text.split(",")]
    made = _scalar(kind)
    try:
        return made(text)
    except ValueError as error:
        expected = " or ".join(made) if issubclass(made, Enum) else made.__name__
        raise InvalidSettings(f"{name} is {text!r}, expected {expected}") from error


def _check(name: str, known: Option, value: Any) -> None:
    """What can be refused before a shard is asked."""
    if known.refused and value != known.default:
        raise InvalidSettings(f"{flag(name)} (or {variable(name)}) cannot be {value!r}: {known.refused}")
    if value is not None and known.least is not None and value < known.least:
        raise InvalidSettings(f"{flag(name)} is {value}, expected at least {known.least}")
    if value is not None and known.most is not None and value > known.most:
        raise InvalidSettings(f"{flag(name)} is {value}, expected at most {known.most}")
