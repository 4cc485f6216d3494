"""The options of `text-generation-benchmark http`, read from flags into frozen values. Knows not what they do."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from text_generation_benchmark.arguments import count, positive
from text_generation_benchmark.errors import BenchmarkError
from text_generation_benchmark.http.endpoints import ENDPOINTS, Wishes
from text_generation_benchmark.http.figures import GOALS
from text_generation_benchmark.http.load import Limit, Rate, Streams
from text_generation_benchmark.http.plot import FORMATS
from text_generation_benchmark.http.sweep import Plan
from text_generation_benchmark.http.targets import Target
from text_generation_benchmark.http.workload import FORMS, Workload

T = TypeVar("T")

_DURATION_S = 30.0
_MAX_IN_FLIGHT = 1024


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where figures go besides the terminal. raw: every request's times too."""

    json: Path | None
    markdown: Path | None
    plot: Path | None
    raw: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """All options. sources: servers to measure, and files of earlier measurements; one or two."""

    sources: tuple[Target | Path, ...]
    plan: Plan
    wishes: Wishes
    headers: Mapping[str, str]
    timeout_s: float
    tokenizer: Path | None
    goals_ms: Mapping[str, float]
    outputs: Outputs

    def parameters(self) -> dict[str, Any]:
        """What a report says about them: all that figures depend on; of headers, which may be secret, the names."""
        plan = self.plan
        return {
            "workloads": [workload.label for workload in plan.workloads],
            "loads": [load.label for load in plan.loads],
            "max_in_flight": max((load.max_in_flight for load in plan.loads if isinstance(load, Rate)), default=None),
            "requests": plan.limit.requests,
            "duration_s": plan.limit.duration_s,
            "repetitions": plan.repetitions,
            "warmup": "one a stream" if plan.warmup is None else plan.warmup,
            "seed": plan.seed,
            "tokenizer": None if self.tokenizer is None else str(self.tokenizer),
            "parameters": dict(self.wishes.parameters),
            "ignore_eos": self.wishes.ignore_eos,
            "headers": list(self.headers),
            "timeout_s": self.timeout_s,
            "goals_ms": dict(self.goals_ms),
        }


def read_settings(arguments: Sequence[str]) -> Settings:
    """argparse exits with 2 on what cannot be used."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if (given.server is None) == (given.compare is None):
        parser.error("expected one server to measure, or --compare with two servers or files")
    sources = tuple(given.compare or [given.server])
    if not any(isinstance(source, Target) for source in sources):
        _refuse_measuring(parser, given)
    if given.raw and given.json is None:
        parser.error("--raw adds to what --json writes; give it too")
    if given.max_in_flight is not None and given.rate is None:
        parser.error("--max-in-flight bounds --rate; as many as --streams are in flight without it")
    duration = given.duration or (None if given.requests else _DURATION_S)
    loads: tuple[Streams | Rate, ...] = tuple(Streams(number) for number in given.streams or [1])
    if given.rate is not None:
        loads = tuple(Rate(rate, given.max_in_flight or _MAX_IN_FLIGHT) for rate in given.rate)
    return Settings(
        sources,
        Plan(
            tuple(dict.fromkeys(given.workload or [Workload.parse("sharegpt")])),
            tuple(dict.fromkeys(loads)),
            Limit(given.requests, duration),
            given.repetitions,
            given.warmup,
            given.seed,
        ),
        Wishes(given.model or "", given.parameters, not given.no_ignore_eos),
        dict(given.header or []),
        given.timeout,
        given.tokenizer,
        dict(given.goodput or []),
        Outputs(given.json, given.markdown, given.plot, given.raw),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="text-generation-benchmark http",
        description="Measures a server as its users see it: streams answers, and keeps the time of every event.",
        epilog="Exits with 1 if any request failed. Nothing is asked of anyone but the servers.",
        allow_abbrev=False,
    )
    paths = ", ".join(endpoint.path for endpoint in ENDPOINTS)
    parser.add_argument(
        "server", nargs="?", type=_read(Target.parse), metavar="URL", help=f"with one of the paths {paths} [the first]"
    )
    parser.add_argument(
        "--compare", nargs=2, type=_source, metavar=("A", "B"), help="two URLs, measured in turns, or files of --json"
    )
    _add_load(parser)
    _add_requests(parser)
    outputs = parser.add_argument_group("outputs")
    outputs.add_argument("--json", type=Path, metavar="FILE", help="write all settings and figures")
    outputs.add_argument("--raw", action="store_true", help="every request's times too")
    outputs.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables that are printed")
    outputs.add_argument("--plot", type=_picture, metavar="FILE", help="draw a .png or .svg; needs the extra `bench`")
    return parser


def _add_load(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("load")
    kind = group.add_mutually_exclusive_group()
    kind.add_argument("--streams", nargs="+", type=count(1), metavar="N", help="so many one after the other [1]")
    kind.add_argument("--rate", nargs="+", type=positive, metavar="R", help="arrivals a second, at random")
    group.add_argument(
        "--max-in-flight", type=count(1), metavar="N", help=f"at a --rate, at most; others wait [{_MAX_IN_FLIGHT}]"
    )
    until = group.add_mutually_exclusive_group()
    until.add_argument("--requests", type=count(1), metavar="N", help="of each repetition; of chats, whole ones")
    until.add_argument("--duration", type=positive, metavar="S", help=f"of each repetition [{_DURATION_S:g}]")
    group.add_argument("--repetitions", type=count(1), default=1, metavar="N", help="of each cell [%(default)s]")
    group.add_argument("--warmup", type=count(0), metavar="N", help="requests before each cell [one a stream]")
    group.add_argument("--timeout", type=positive, default=600.0, metavar="S", help="of a request [%(default)s]")
    group.add_argument(
        "--goodput",
        nargs="+",
        type=_goal,
        metavar="GOAL:MS",
        help=f"which requests are good, by any of {', '.join(GOALS)} (itl: the longest pause)",
    )


def _add_requests(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("requests")
    group.add_argument(
        "--workload", nargs="+", type=_read(Workload.parse), metavar="W", help=f"such as {FORMS} [sharegpt]"
    )
    group.add_argument("--tokenizer", type=Path, metavar="PATH", help="tokenizer.json, for prompts of exact lengths")
    group.add_argument("--seed", type=count(0), default=0, metavar="N", help="of everything random [%(default)s]")
    group.add_argument("--model", metavar="NAME", help="for /v1 [the first that the server lists, else tgi]")
    group.add_argument(
        "--parameters", type=_object, default={}, metavar="JSON", help='added to each request, {"temperature": 0.7}'
    )
    group.add_argument("--no-ignore-eos", action="store_true", help="let answers of /v1 end by themselves")
    group.add_argument("--header", action="append", type=_header, metavar="NAME:VALUE", help="sent with each request")


def _refuse_measuring(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """An option acts or is refused."""
    results = {"server", "compare", "json", "markdown", "plot"}
    for name, value in vars(given).items():
        if name not in results and value != parser.get_default(name):
            parser.error(f"--{name.replace('_', '-')} is for measuring, and --compare was given two files")


def _source(text: str) -> Target | Path:
    return _read(Target.parse)(text) if "://" in text else Path(text)


def _read(parse: Callable[[str], T]) -> Callable[[str], T]:
    def read(text: str) -> T:
        try:
            return parse(text)
        except BenchmarkError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def _goal(text: str) -> tuple[str, float]:
    name, _, limit = text.partition(":")
    if name not in GOALS:
        raise argparse.ArgumentTypeError(f"{text!r}, expected one of {', '.join(GOALS)} with milliseconds: ttft:500")
    return name, positive(limit)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = (part.strip() for part in text.partition(":"))
    if not colon or not name or "\n" in text or "\r" in text:
        raise argparse.ArgumentTypeError("expected NAME:VALUE, such as 'Authorization: Bearer …'")
    return name, value


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f'{text!r}, expected a JSON object, such as {{"temperature": 0.7}}')
    return found


def _picture(text: str) -> Path:
    if Path(text).suffix not in FORMATS:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a name that ends with {' or '.join(FORMATS)}")
    return Path(text)
