"""The options of a router that its launcher has as well, and what is known of an option. Parses nothing.

A field of such a table is a flag with its underscores as dashes, and a variable in upper case.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """What is known of an option beside name and type.

    least, most: inclusive bounds. refused: why no other value than the default is accepted.
    """

    default: Any
    help: str
    short: str = ""
    least: float | None = None
    most: float | None = None
    refused: str = ""


def option(default: Any, help: str, **known: Any) -> Any:
    """A field of a table of options; `known` as in `Option`."""
    return row(Option(default=default, help=help, **known))


def row(known: Option) -> Any:
    """A field of a table of options that is told all at once."""
    return dataclasses.field(default=known.default, metadata={"option": known})


def table(options: type) -> Mapping[str, Option]:
    """What a table knows of each option, by name."""
    return {field.name: field.metadata["option"] for field in dataclasses.fields(options)}


def flag(name: str) -> str:
    """The command-line spelling of an option."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """The environment spelling of an option."""
    return name.upper()


def is_path(chat_template: str) -> bool:
    """Whether a --chat-template is the path of one: every template has a brace."""
    return "{" not in chat_template


class UsageStats(StrEnum):
    """What a router may report to its maker."""

    ON = "on"
    OFF = "off"
    NO_STACK = "no-stack"


_NO_NGROK = "tunnels through ngrok are not made; put a reverse proxy in front"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterOptions:
    """What one router is asked for, in the order of TGI's launcher, then ours, with a launcher's defaults."""

    revision: str | None = option(None, "Revision on the hub")
    served_model_name: str | None = option(None, "Name in /info and /v1/models; by default what was asked for")
    validation_workers: int = option(2, "Tokenizer threads", least=1)
    trust_remote_code: bool = option(False, "Allow a model's own Python code to run")
    max_concurrent_requests: int = option(128, "Requests served at once; further ones are answered with 429", least=1)
    max_best_of: int = option(2, "Largest best_of, and n", least=1)
    max_stop_sequences: int = option(4, "Most stop sequences of a request", least=0)
    max_top_n_tokens: int = option(5, "Largest top_n_tokens", least=0)
    max_input_tokens: int | None = option(None, "Longest prompt in tokens; by default what shards allow", least=1)
    max_total_tokens: int | None = option(None, "Longest prompt and answer; by default what shards allow", least=2)
    waiting_served_ratio: float = option(
        0.3, "Without chunked prefill: queued to running requests that make a batch", least=0
    )
    max_batch_prefill_tokens: int | None = option(None, "Most prompt tokens of one forward pass", least=1)
    max_batch_total_tokens: int | None = option(None, "Cache in tokens, if shards do not measure it", least=1)
    max_waiting_tokens: int = option(
        20, "Without chunked prefill: decode steps after which the queue is served anyway", least=0
    )
    max_batch_size: int | None = option(None, "Most requests of a batch", least=1)
    hostname: str = option("0.0.0.0", "IP address to listen on")
    port: int = option(3000, "HTTP port", short="-p", least=1, most=65535)
    prometheus_port: int = option(9000, "Port of /metrics alone, beside the main port; 0 for none", least=0, most=65535)
    json_output: bool = option(False, "Log JSON, an object a line")
    otlp_endpoint: str | None = option(None, "Collector of traces, over gRPC: http://host:4317")
    otlp_service_name: str = option("text-generation-inference.router", "Name in traces")
    cors_allow_origin: list[str] | None = option(None, "Origin browsers may call from; repeatable, by default any")
    api_key: str | None = option(None, "Key that all routes but GET ask for; several with commas between")
    ngrok: bool = option(False, "Open an ngrok tunnel", refused=_NO_NGROK)
    ngrok_authtoken: str | None = option(None, "ngrok's token", refused=_NO_NGROK)
    ngrok_edge: str | None = option(None, "ngrok's edge", refused=_NO_NGROK)
    tokenizer_config_path: str | None = option(None, "A tokenizer_config.json whose chat template and tokens are used")
    chat_template: str | None = option(None, "Chat template, or path of one, instead of the model's")
    disable_grammar_support: bool = option(False, "Refuse requests with a grammar")
    max_client_batch_size: int = option(4, "Most prompts of one request", least=1)
    # Ours reports nothing to anyone, whatever is given.
    usage_stats: UsageStats = option(UsageStats.ON, "What a router of another maker may report")
    api_key_file: str | None = option(None, "File with further keys, one a line; lines that begin with # are none")
    payload_limit: int = option(2_000_000, "Largest request body in bytes", least=1)
    graceful_termination_timeout: int = option(90, "Seconds that running requests get at the end", short="-g", least=0)
    request_timeout: float | None = option(None, "Seconds a request may take; by default any number", least=0.1)
    router_workers: int = option(
        1, "Processes that answer HTTP, before one that makes batches; 1: one does both", least=1
    )
    tgi_compat: bool = option(False, "Answer on OpenAI's routes in TGI's bytes where they differ from OpenAI's")
    disable_playground: bool = option(False, "Show browsers no page at /")
    strict_model_names: bool = option(False, "Answer 404 to a `model` that is not served, not as the model itself")
    kserve: bool = option(False, "Have the routes of KServe's version 2 protocol too, under /v2")
    watchdog_timeout: float | None = option(
        None, "Seconds without an answer of the shards after which /health fails; by default never", least=0.1
    )
    tool_call_parser: str | None = option(None, "How the model writes calls of tools; by default as its template says")
    reasoning_parser: str | None = option(None, "How it writes reasoning, or none; by default as its template says")
    max_images: int = option(16, "Most images of a request", least=0)
    max_image_fetch_size: int = option(2**25, "Most bytes of the images that a request has at URLs", least=1)
    image_url_timeout: float = option(10.0, "Seconds that fetching an image may take", least=0.1)
    image_url_private: bool = option(False, "Fetch images from this machine and private networks too")
