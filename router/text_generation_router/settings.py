"""The router's options: name, type, default and help of each, read from flags and environment into one frozen value.

The only module that reads the environment. Knows nothing of what the options do.
"""

import argparse
import dataclasses
import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, get_args, get_type_hints

from text_generation_router.errors import InvalidSettings

_DEFAULT_SERVICE = "text-generation-inference.router"


def option(default: Any, help: str, refused: str | None = None, env_only: bool = False) -> Any:
    """A setting: `--the-field-name` and THE_FIELD_NAME. refused: why no other value than the default is accepted."""
    return dataclasses.field(default=default, metadata={"help": help, "refused": refused, "env_only": env_only})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every option of the command line; a field is its flag with underscores, and upper-case its variable."""

    max_concurrent_requests: int = option(128, "requests served at once; further ones are answered with 429")
    max_best_of: int = option(2, "largest `best_of`")
    max_stop_sequences: int = option(4, "most `stop` entries of a request")
    max_top_n_tokens: int = option(5, "largest `top_n_tokens`")
    max_input_tokens: int | None = option(None, "longest prompt; by default what the shards allow")
    max_total_tokens: int | None = option(None, "longest prompt and answer together; by default what the shards allow")
    waiting_served_ratio: float = option(1.2, "without chunked prefill: queued to running requests that make a batch")
    max_batch_prefill_tokens: int = option(4096, "most tokens of one forward pass")
    max_batch_total_tokens: int | None = option(None, "cache size in tokens, for shards that do not measure it")
    max_waiting_tokens: int = option(20, "without chunked prefill: decode steps after which the queue is served anyway")
    max_batch_size: int | None = option(None, "most requests in a batch")
    hostname: str = option("0.0.0.0", "IP address to listen on")
    port: int = option(3000, "port to listen on; 0 takes a free one")
    prometheus_port: int = option(9000, "port that serves /metrics alone, beside the main port; 0 opens none")
    master_shard_uds_path: str = option("/tmp/text-generation-server-0", "socket of the first shard")
    tokenizer_name: str = option("bigscience/bloom", "model directory or hub id")
    tokenizer_config_path: str | None = option(
        None, "replaces tokenizer_config.json", "it only serves chat templates, which this version does not have"
    )
    revision: str | None = option(None, "hub revision of the tokenizer")
    trust_remote_code: bool = option(False, "let a tokenizer without tokenizer.json run the repository's code")
    validation_workers: int = option(2, "tokenizer threads")
    api_key: str | None = option(None, "key that POST routes ask for")
    json_output: bool = option(False, "log one JSON object a line")
    otlp_endpoint: str | None = option(None, "trace collector", "traces are not exported by this version")
    otlp_service_name: str = option(_DEFAULT_SERVICE, "name in traces", "traces are not exported by this version")
    cors_allow_origin: tuple[str, ...] = option((), "origin that browsers may call from; repeatable, default any")
    ngrok: bool = option(False, "tunnel", "the router opens no tunnels; put a reverse proxy in front of it")
    ngrok_authtoken: str | None = option(None, "tunnel token", "the router opens no tunnels")
    ngrok_edge: str | None = option(None, "tunnel edge", "the router opens no tunnels")
    disable_grammar_support: bool = option(False, "refuse requests with a grammar")
    max_client_batch_size: int = option(
        4, "most prompts of one /v1/completions call", "this version does not have /v1/completions"
    )
    usage_stats: str = option("on", "on, off or no-stack; accepted for compatibility, nothing is ever reported")
    payload_limit: int = option(2_000_000, "longest request body in bytes")

    max_image_fetch_size: int = option(1 << 30, "", "this version takes no images", env_only=True)
    compute_type: str = option("gpu+optimized", "", env_only=True)
    log_level: str = option("info", "", env_only=True)


def settings_of_command(arguments: Sequence[str]) -> Settings:
    """The settings of this process, started with `arguments`. Raises as `read_settings`."""
    return read_settings(arguments, os.environ)


def read_settings(arguments: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Flags win over variables, variables over defaults.

    Raises InvalidSettings for values that cannot be used; argparse exits with 2 on unknown flags.
    """
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    types = get_type_hints(Settings)
    values = {
        name: _from_text(types[name], environ[name.upper()], name.upper())
        for name in fields
        if environ.get(name.upper(), "") != ""
    }
    values |= {
        name: tuple(v) if isinstance(v, list) else v for name, v in vars(_parser().parse_args(arguments)).items()
    }
    for name, value in values.items():
        reason = fields[name].metadata["refused"]
        if reason is not None and value != fields[name].default:
            raise InvalidSettings(f"{_flag(name)} (or {name.upper()}) cannot be {value!r}: {reason}")
    return _checked(Settings(**values))


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
    for field in dataclasses.fields(Settings):
        if field.metadata["env_only"]:
            continue
        flags = [_flag(field.name), *(["-p"] if field.name == "port" else [])]
        if types[field.name] is bool:
            parser.add_argument(*flags, action="store_true", help=field.metadata["help"])
        else:
            repeated: dict[str, Any] = {"action": "append"} if types[field.name] == tuple[str, ...] else {}
            shown = f"{field.metadata['help']} [{field.default}]" if field.default else field.metadata["help"]
            parser.add_argument(*flags, type=_scalar(types[field.name]), help=shown, **repeated)
    return parser


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _scalar(kind: Any) -> Any:
    """The type that turns one argument into a value: `int` for `int | None`, `str` for `tuple[str, ...]`."""
    if isinstance(kind, UnionType):
        return next(part for part in get_args(kind) if part is not type(None))
    return str if kind == tuple[str, ...] else kind


def _from_text(kind: Any, text: str, variable: str) -> Any:
    if kind is bool:
        if text not in ("true", "false"):
            raise InvalidSettings(f"{variable} is {text!r}, expected `true` or `false`")
        return text == "true"
    if kind == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(","))
    try:
        return _scalar(kind)(text)
    except ValueError as error:
        raise InvalidSettings(f"{variable} is {text!r}, expected {_scalar(kind).__name__}") from error


def _checked(settings: Settings) -> Settings:
    """What can be refused before a shard is asked."""
    positive = (
        "max_concurrent_requests",
        "max_best_of",
        "max_batch_prefill_tokens",
        "max_batch_size",
        "max_input_tokens",
        "max_total_tokens",
        "payload_limit",
        "validation_workers",
    )
    for field in dataclasses.fields(Settings):
        value = getattr(settings, field.name)
        if isinstance(value, int | float) and value < (1 if field.name in positive else 0):
            raise InvalidSettings(f"{_flag(field.name)} is {value}, expected {'at least 1' if value == 0 else '>= 0'}")
    if settings.usage_stats not in ("on", "off", "no-stack"):
        raise InvalidSettings(f"--usage-stats is {settings.usage_stats!r}, expected on, off or no-stack")
    known = settings.max_input_tokens, settings.max_total_tokens
    if known[0] is not None and known[1] is not None and known[0] >= known[1]:
        raise InvalidSettings(f"--max-input-tokens {known[0]} must be less than --max-total-tokens {known[1]}")
    return settings
