"""The command `text-generation-server`: options in, exit code out. Knows no models, sockets or variables."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from loguru import logger

from text_generation_server import log
from text_generation_server.adapters.sources import NONE_WANTED, AdapterSource, adapter_sources
from text_generation_server.choices import Dtype, KvCacheDtype, LoadFormat, Quantize
from text_generation_server.environment import set_cuda_architectures
from text_generation_server.errors import InvalidSettings, StartError
from text_generation_server.lifetime import leave
from text_generation_server.settings import SERVICE_NAME, ServeOptions, hub_settings, server_config

USAGE_ERROR = 2

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)

ModelId = Annotated[str, typer.Argument(help="Model directory, .gguf file, hub id, or `smollm2`.", show_default=False)]
Revision = Annotated[str | None, typer.Option(help="Revision on the hub.")]
LoggerLevel = Annotated[str, typer.Option(help="TRACE, DEBUG, INFO, WARN, ERROR or OFF.")]
JsonOutput = Annotated[bool, typer.Option(help="Log JSON lines, as launchers read them.")]
LoadFormatOption = Annotated[
    LoadFormat, typer.Option(help="auto: safetensors, or written from PyTorch files; dummy: random weights.")
]
KvCacheDtypeOption = Annotated[
    KvCacheDtype,
    typer.Option(help="What keys and values are kept as; auto: as they are computed, or a checkpoint says."),
]
QuantizeOption = Annotated[
    Quantize | None,
    typer.Option(
        help="What a plain checkpoint's weights are made into; a quantised one says itself what it is; "
        "gguf: a .gguf file's stay packed."
    ),
]
DtypeOption = Annotated[
    Dtype | None,
    typer.Option(help="Default: float16 on a GPU; on a CPU bfloat16 where it has the instructions, else float32."),
]
UseFlashInfer = Annotated[
    bool | None,
    typer.Option(
        "--use-flashinfer/--disable-flashinfer", help="Insist on FlashInfer's kernels, or do without. [default: auto]"
    ),
]
MaxMixedTokens = Annotated[
    int | None, typer.Option(min=1, help="Most tokens of a step with prompts beside answers. [default: by device]")
]
TrustRemoteCode = Annotated[bool, typer.Option(help="Let tokenizers run Python code of the model's directory.")]


@app.callback()
def text_generation_server() -> None:
    """One shard of a model, served over the text-generation-inference protocol."""


@app.command()
def serve(
    model_id: ModelId,
    revision: Revision = None,
    sharded: Annotated[
        bool, typer.Option(help="One of several ranks: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT say which.")
    ] = False,
    quantize: QuantizeOption = None,
    speculate: Annotated[
        int, typer.Option(help="Most tokens guessed a step, from what was said before, and verified.", min=0)
    ] = 0,
    dtype: DtypeOption = None,
    kv_cache_dtype: KvCacheDtypeOption = KvCacheDtype.AUTO,
    trust_remote_code: TrustRemoteCode = False,
    uds_path: Annotated[Path, typer.Option(help="Prefix of the socket's path; the rank follows.")] = Path(
        "/tmp/text-generation-server"
    ),
    logger_level: LoggerLevel = "INFO",
    json_output: JsonOutput = False,
    otlp_endpoint: Annotated[str | None, typer.Option(help="Collector of traces: http://host:4317.")] = None,
    otlp_service_name: Annotated[str, typer.Option(help="Name in traces.")] = SERVICE_NAME,
    max_input_tokens: Annotated[int | None, typer.Option(help="Informational: the router's Warmup says it.")] = None,
    lora_ids: Annotated[str, typer.Option(help="Adapters to load, separated by semicolons.")] = NONE_WANTED,
    use_flashinfer: UseFlashInfer = None,
    diffusion: Annotated[bool, typer.Option(help="Not served yet.")] = False,
    run_ahead: Annotated[bool, typer.Option(help="Launch the next step before reading the last one.")] = True,
    load_format: LoadFormatOption = LoadFormat.AUTO,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="The same tokens whatever else is computed; slower, on a CPU only.")
    ] = False,
    max_mixed_tokens: MaxMixedTokens = None,
) -> None:
    """Load a model and serve it on a Unix socket until a signal comes."""
    _set_up_log(logger_level, json_output)
    _refuse({"--diffusion": diffusion})
    options = ServeOptions(
        *(model_id, revision, sharded, dtype, trust_remote_code),
        *(uds_path, run_ahead, speculate, use_flashinfer, load_format),
        deterministic=deterministic,
        lora_ids=lora_ids,
        max_mixed_tokens=max_mixed_tokens,
        otlp_endpoint=otlp_endpoint,
        otlp_service_name=otlp_service_name,
        quantize=quantize,
        kv_cache_dtype=kv_cache_dtype,
    )
    try:
        config = server_config(options)
        log.configure(logger_level, json_output, config.ranks.rank)
    except InvalidSettings as error:
        _fail(error, USAGE_ERROR)
    began = time.monotonic()
    from text_generation_server.serve import serve as run  # torch takes seconds to import

    seconds = time.monotonic() - began
    logger.bind(phase="imports", seconds=seconds).info("Imported PyTorch and the server in {:.1f} s", seconds)
    leave(run(config))


@app.command()
def download_weights(
    model_id: ModelId,
    revision: Revision = None,
    extension: Annotated[str, typer.Option(help="Of the weight files.")] = ".safetensors",
    auto_convert: Annotated[bool, typer.Option(help="Convert PyTorch files where there are no others.")] = True,
    logger_level: LoggerLevel = "INFO",
    json_output: JsonOutput = False,
    trust_remote_code: TrustRemoteCode = False,
    merge_lora: Annotated[
        bool,
        typer.Option(help="Refuse an adapter, which would be merged; without it, adapters are fetched as they are."),
    ] = False,
    load_format: LoadFormatOption = LoadFormat.AUTO,
    quantize: QuantizeOption = None,
) -> None:
    """Make the files of a model, or of an adapter, local: find, download, convert."""
    _set_up_log(logger_level, json_output)
    from text_generation_server.weights.dummy import locate_without_weights  # the hub's library imports slowly
    from text_generation_server.weights.files import AdapterNotModel
    from text_generation_server.weights.hub import weight_bytes
    from text_generation_server.weights.source import prepare

    try:
        hub, convert = hub_settings(), auto_convert and load_format is LoadFormat.AUTO
        packed = quantize is not None and quantize.keeps_packing
        if load_format is LoadFormat.DUMMY:
            directory = locate_without_weights(model_id, revision, hub, logger.info)
        else:
            directory = prepare(model_id, revision, extension, hub, trust_remote_code, convert, logger.info, packed)
        weights = weight_bytes(directory, extension)
        report = logger.bind(phase="download", path=str(directory), bytes=weights)
        report.info("{} is ready in {}: {:.0f} MB of weights", model_id, directory, weights / 1e6)
    except AdapterNotModel as error:
        if merge_lora:
            _fail(error, 1)
        _fetch_adapters([AdapterSource(model_id, model_id, revision)])
    except StartError as error:
        _fail(error, USAGE_ERROR if isinstance(error, InvalidSettings) else 1)


@app.command()
def download_lora_adapters(
    lora_ids: Annotated[str, typer.Argument(help="Hub ids or directories, separated by semicolons.")],
    logger_level: LoggerLevel = "INFO",
    json_output: JsonOutput = False,
) -> None:
    """Make the files of adapters local, as kv.run's launcher and router ask for it."""
    _set_up_log(logger_level, json_output)
    try:
        _fetch_adapters(adapter_sources("", lora_ids))
    except InvalidSettings as error:
        _fail(error, USAGE_ERROR)


def _fetch_adapters(sources: Sequence[AdapterSource]) -> None:
    from text_generation_server.adapters.files import locate_adapter  # the hub's library imports slowly

    try:
        for source in sources:
            logger.info("The adapter {} is in {}", source.name, locate_adapter(source, hub_settings(), logger.info))
    except StartError as error:
        _fail(error, 1)


@app.command()
def prepare_kernels(
    model_id: ModelId,
    revision: Revision = None,
    dtype: Annotated[Dtype, typer.Option(help="That it will be served with.")] = Dtype.FLOAT16,
    kv_cache_dtype: KvCacheDtypeOption = KvCacheDtype.AUTO,
    num_shard: Annotated[int, typer.Option(help="Ranks that it will be cut over.", min=1)] = 1,
    arch: Annotated[
        str | None,
        typer.Option(
            help="GPUs to compile for, by architecture: 9.0a is H100. [default: by the variable "
            "FLASHINFER_CUDA_ARCH_LIST, else those of this machine]",
        ),
    ] = None,
    embed: Annotated[
        bool,
        typer.Option(help="Put modules into the installed FlashInfer: no compiler is needed then, but these GPUs."),
    ] = False,
    logger_level: LoggerLevel = "INFO",
    json_output: JsonOutput = False,
) -> None:
    """Compile the CUDA kernels that a model needs; for that there need be no GPU."""
    _set_up_log(logger_level, json_output)
    try:
        if arch is not None:
            set_cuda_architectures(arch)
        from text_generation_server.prepare import prepare_kernels as prepare  # torch takes seconds to import

        prepare(model_id, revision, dtype, kv_cache_dtype, num_shard, hub_settings(), embed, logger.info)
    except StartError as error:
        _fail(error, USAGE_ERROR if isinstance(error, InvalidSettings) else 1)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def quantize() -> None:
    """Not served yet."""
    _set_up_log("INFO", json_output=False)
    _fail(InvalidSettings("quantize is not served yet; serve the model without it"), USAGE_ERROR)


def _set_up_log(level: str, json_output: bool) -> None:
    try:
        log.configure(level, json_output)
    except InvalidSettings as error:
        print(error, file=sys.stderr)
        raise typer.Exit(USAGE_ERROR) from error


def _refuse(options: dict[str, Any]) -> None:
    """Options whose feature does not exist are named, never ignored."""
    for name, value in options.items():
        if value:
            shown = name if value is True else f"{name} {value}"
            _fail(InvalidSettings(f"{shown} is not served yet; start without it"), USAGE_ERROR)


def _fail(error: Exception, code: int) -> NoReturn:
    """Say what is wrong in the log, and on stderr, which launchers show when a process has ended."""
    logger.error("{}", error)
    print(f"Error: {error}", file=sys.stderr)
    raise typer.Exit(code)


def main() -> None:
    """Entry point of the console command."""
    app()


if __name__ == "__main__":
    main()
