"""The command's options, read from flags and environment into frozen values.

The only module that reads the environment. Knows nothing of what the options do.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from text_generation_benchmark.arguments import count, finite

HTTP = "http"
"""The first argument that means another command, with options of its own."""

_BATCH_SIZES = (1, 2, 4, 8, 16, 32)
_SOCKET = "/tmp/text-generation-server-0"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How each next token is chosen; the defaults are greedy and change nothing."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    watermark: bool = False
    do_sample: bool = False


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked of the shard. Lengths in tokens; decode_length includes the token that comes with the prefill.

    max_batch_prefill_tokens: of one Prefill; a batch with more goes in several. None for no limit.
    """

    batch_sizes: tuple[int, ...] = _BATCH_SIZES
    sequence_length: int = 10
    decode_length: int = 8
    runs: int = 10
    warmups: int = 1
    top_n_tokens: int = 0
    max_batch_prefill_tokens: int | None = None
    sampling: Sampling = Sampling()


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where the figures go besides the terminal, and what they are compared with."""

    json: Path | None = None
    markdown: Path | None = None
    plots: Path | None = None
    compare: Path | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """All options."""

    workload: Workload
    outputs: Outputs
    socket: Path
    tokenizer_name: str | None
    revision: str
    shard_warmup: bool


def settings_of_command(arguments: Sequence[str]) -> Settings:
    """The settings of this process, started with `arguments`. Raises as `read_settings`."""
    return read_settings(arguments, os.environ)


def read_settings(arguments: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Flags win over variables, variables over defaults. argparse exits with 2 on what cannot be used."""
    parser = _parser(environ)
    given = parser.parse_args(arguments)
    if given.max_batch_prefill_tokens is not None and given.max_batch_prefill_tokens < given.sequence_length:
        parser.error(
            f"--max-batch-prefill-tokens is {given.max_batch_prefill_tokens}, "
            f"expected at least --sequence-length, which is {given.sequence_length}"
        )
    sampling = Sampling(
        temperature=given.temperature,
        top_k=given.top_k,
        top_p=given.top_p,
        typical_p=given.typical_p,
        repetition_penalty=given.repetition_penalty,
        frequency_penalty=given.frequency_penalty,
        watermark=given.watermark,
        do_sample=given.do_sample,
    )
    workload = Workload(
        batch_sizes=tuple(dict.fromkeys(given.batch_size or _BATCH_SIZES)),
        sequence_length=given.sequence_length,
        decode_length=given.decode_length,
        runs=given.runs,
        warmups=given.warmups,
        top_n_tokens=given.top_n_tokens,
        max_batch_prefill_tokens=given.max_batch_prefill_tokens,
        sampling=sampling,
    )
    return Settings(
        workload,
        Outputs(given.json, given.markdown, given.plots, given.compare),
        given.master_shard_uds_path,
        given.tokenizer_name,
        given.revision,
        given.shard_warmup,
    )


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="text-generation-benchmark",
        description="Measures prefill and decode of a running shard through its Unix socket. It takes the shard for "
        f"itself: whatever a router has running there is dropped. `%(prog)s {HTTP} --help` is about servers over HTTP.",
        epilog="Options of workload and sampling are also read from variables: --sequence-length from SEQUENCE_LENGTH.",
        allow_abbrev=False,
    )
    _add_place(parser, environ)
    _add_workload(parser, environ)
    _add_sampling(parser, environ)
    outputs = parser.add_argument_group("outputs")
    outputs.add_argument("--json", type=Path, metavar="FILE", help="write every figure, each run's too")
    outputs.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables that are printed")
    outputs.add_argument("--plots", type=Path, metavar="DIR", help="draw PNG files; needs the extra `bench`")
    outputs.add_argument("--compare", type=Path, metavar="FILE", help="a --json file: adds ratios, this run to that")
    return parser


def _add_place(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    place = parser.add_argument_group("shard")
    place.add_argument(
        "-m", "--master-shard-uds-path", type=Path, metavar="SOCKET",
        default=environ.get("MASTER_SHARD_UDS_PATH", _SOCKET), help="socket of the first shard [%(default)s]",
    )  # fmt: skip
    place.add_argument(
        "-t", "--tokenizer-name", default=environ.get("TOKENIZER_NAME"),
        help="directory, tokenizer.json or hub id, for prompts of the right length; without it the shard cuts words",
    )  # fmt: skip
    place.add_argument("--revision", default=environ.get("REVISION", "main"), help="on the hub [%(default)s]")
    place.add_argument(
        "--shard-warmup",
        action="store_true",
        help="warm the shard up first, as a router does; for a shard that no router has warmed up yet",
    )


def _add_workload(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    group = parser.add_argument_group("workload")
    sizes = " ".join(map(str, _BATCH_SIZES))
    group.add_argument(
        "-b", "--batch-size", action="extend", nargs="+", type=count(1), metavar="N", help=f"one or more [{sizes}]"
    )
    for flags, least, default, meaning in (
        (("-s", "--sequence-length"), 1, 10, "tokens of each prompt"),
        (("-d", "--decode-length"), 2, 8, "tokens generated for each, the prefill's one included"),
        (("-r", "--runs"), 1, 10, "runs measured for each batch size"),
        (("-w", "--warmups"), 0, 1, "runs before them that are not"),
        (("--top-n-tokens",), 0, 0, "alternatives returned with each token"),
    ):
        default_text = environ.get(_variable(flags[-1]), str(default))
        group.add_argument(
            *flags, type=count(least), metavar="N", default=default_text, help=f"{meaning} [%(default)s]"
        )

    group.add_argument(
        "--max-batch-prefill-tokens",
        type=count(1),
        metavar="N",
        default=environ.get("MAX_BATCH_PREFILL_TOKENS"),
        help="prompt tokens of one Prefill; larger batches are sent in several [no limit]",
    )


def _add_sampling(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    group = parser.add_argument_group("sampling")
    neutral = Sampling()
    for name in ("temperature", "top_p", "typical_p", "repetition_penalty", "frequency_penalty"):
        default = environ.get(name.upper(), str(getattr(neutral, name)))
        group.add_argument(_flag(name), type=finite, metavar="X", default=default, help="[%(default)s]")
    group.add_argument(
        "--top-k", type=count(0), metavar="N", default=environ.get("TOP_K", "0"), help="0 is off [%(default)s]"
    )
    for name in ("watermark", "do_sample"):
        group.add_argument(_flag(name), action="store_true", default=environ.get(name.upper()) == "true")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _variable(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_").upper()
