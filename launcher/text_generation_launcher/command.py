"""The options table as a command line. Knows nothing of how a launch goes."""

import asyncio
import inspect
from collections.abc import Iterator
from importlib import metadata
from typing import Annotated, Any, get_type_hints

import typer

from text_generation_launcher.console import Console
from text_generation_launcher.context import LaunchContext
from text_generation_launcher.errors import OptionError
from text_generation_launcher.hardware import find_hardware
from text_generation_launcher.options import OF_ROUTER, Options
from text_generation_launcher.report import runtime_report
from text_generation_launcher.settings import Origin, checked, read_environment
from text_generation_launcher.supervise import supervise
from text_generation_router.options import Option, flag, table, variable

_HELP = """Serve a model over HTTP: download or check its weights, start a shard a rank and a router, watch them.

Every option can also be given as the environment variable named beside it; the command line wins."""


def command() -> typer.Typer:
    """The command line; its context object is the Programs to start."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=_HELP, context_settings={"help_option_names": ["--help", "-h"]})(_with_options(_launch))
    return app


def _launch(context: typer.Context, version: bool, **values: Any) -> None:
    if version:
        typer.echo(f"text-generation-launcher {_version()}")
        return
    origin = _origin(context)
    try:
        environment = read_environment()
        options, warnings = checked(Options(**values), origin, environment)
    except OptionError as error:
        raise typer.BadParameter(str(error)) from None
    console = Console(json_lines=options.json_output, level=environment.log_level)
    for warning in warnings:
        console.warn(warning)
    _run(
        LaunchContext(options, origin.given, environment, context.obj, find_hardware(environment.search_path)), console
    )


def _run(launch: LaunchContext, console: Console) -> None:
    if launch.options.env:
        console.info(runtime_report(launch.hardware))
        if "model_id" not in launch.given:
            return
    raise typer.Exit(asyncio.run(supervise(launch, console)))


def _origin(context: typer.Context) -> Origin:
    sources = {name: context.get_parameter_source(name) for name in table(Options)}
    found = {name: source.name for name, source in sources.items() if source is not None}
    return Origin(
        command_line=frozenset(name for name, source in found.items() if source == "COMMANDLINE"),
        environment=frozenset(name for name, source in found.items() if source == "ENVIRONMENT"),
    )


def _version() -> str:
    try:
        return metadata.version("kvrun")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _with_options(function: Any) -> Any:
    """Give the function the signature that typer reads options from: one parameter a row of the table."""
    parameters = list(_parameters())
    function.__signature__ = inspect.Signature(parameters)
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return function


def _parameters() -> Iterator[inspect.Parameter]:
    yield inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    kinds: dict[str, Any] = get_type_hints(Options)
    # The model comes first, not what a router does with it.
    for name, option in sorted(table(Options).items(), key=lambda row: row[0] in OF_ROUTER):
        yield _parameter(name, kinds[name], option.default, _typer_option(name, option))
    yield _parameter("version", bool, False, typer.Option("--version", "-V", help="Show the version"))


def _parameter(name: str, kind: Any, default: object, option: Any) -> inspect.Parameter:
    annotation = Annotated[kind, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _typer_option(name: str, option: Option) -> Any:
    spellings = [flag(name), *([option.short] if option.short else [])]
    text = f"{option.help} (refused: {option.refused})" if option.refused else option.help
    # `--env` is the one option without a variable: ENV is too common a name (docs/launcher.md#options).
    names = None if name == "env" else variable(name)
    return typer.Option(*spellings, envvar=names, help=text, min=option.least, max=option.most)
