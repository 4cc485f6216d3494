"""Brings a model's weights to this host by running the server's `download-weights`. Knows no hub."""

from dataclasses import dataclass
from pathlib import Path

from text_generation_launcher.child import spawn
from text_generation_launcher.context import LaunchContext
from text_generation_launcher.environments import download_environment
from text_generation_launcher.errors import LaunchError
from text_generation_launcher.options import Options
from text_generation_launcher.relay import Record
from text_generation_launcher.startup import Phase, StartUp
from text_generation_server.choices import LoadFormat

_GRACE_SECONDS = 10.0


@dataclass(slots=True)
class Downloaded:
    """What a download reported: the model's folder and the bytes of its weights, as far as it said."""

    path: str | None = None
    bytes: int | None = None

    def take(self, record: Record) -> None:
        """Remember a report with a path."""
        path = record.extra.get("path")
        if record.phase == Phase.DOWNLOAD and isinstance(path, str):
            self.path, self.bytes = str(Path(path).absolute()), record.number("bytes")


def download_command(launch: LaunchContext) -> list[str]:
    """The command of docs/launcher.md#children, for the main model."""
    options = launch.options
    command = [*launch.programs.server, "download-weights", options.model_id, "--extension", ".safetensors"]
    command += ["--logger-level", "INFO", "--json-output", "--merge-lora"]
    if options.revision is not None:
        command += ["--revision", options.revision]
    command += load_format(options)
    if options.quantize is not None and options.quantize.keeps_packing:
        command += ["--quantize", options.quantize]
    return [*command, *(["--trust-remote-code"] if options.trust_remote_code else [])]


def load_format(options: Options) -> list[str]:
    """The flag of the same name, which servers of other makers do not have, where it says something."""
    return [] if options.load_format is LoadFormat.AUTO else ["--load-format", options.load_format]


async def download(launch: LaunchContext, start_up: StartUp) -> Downloaded:
    """Run the download to its end. Raises LaunchError, with its stderr, if it fails; cancelled, it ends the process."""
    found = Downloaded()
    child = spawn(
        "download",
        download_command(launch),
        download_environment(launch),
        python=launch.programs.python,
        stdout=start_up.stdout_of("download", found.take),
        stderr=start_up.stderr_of("download"),
    )
    try:
        code = await child.wait()
    finally:
        await child.stop(_GRACE_SECONDS)
    if code != 0:
        raise LaunchError(
            f"{launch.options.model_id} could not be made ready: {child.describe_end()}", child.last_lines
        )
    return Downloaded(found.path or _local_folder(launch.options.model_id), found.bytes)


def _local_folder(model_id: str) -> str | None:
    return str(Path(model_id).absolute()) if Path(model_id).is_dir() else None
