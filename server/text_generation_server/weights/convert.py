"""Rewrites PyTorch .bin and .pt files as safetensors. Knows no hub, and never runs code that a pickle holds."""

import json
import pickle
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file

from text_generation_server.errors import UnsupportedModel

_SUFFIXES = (".bin", ".pt")
_NOT_WEIGHTS = ("arguments", "args", "training", "optimizer", "scheduler")


def torch_files(directory: Path) -> list[Path]:
    """The weight files of a directory that are in PyTorch's own format, by name."""
    found = (path for path in sorted(directory.iterdir()) if path.suffix in _SUFFIXES)
    return [path for path in found if not any(word in path.name for word in _NOT_WEIGHTS)]


def convert_torch_files(directory: Path, report: Callable[[str], None]) -> list[Path]:
    """Write a safetensors file beside each of the directory's PyTorch files, and an index where they have one.

    One file is in memory at a time; each appears whole or not at all. Raises UnsupportedModel for a file that holds
    anything but named tensors.
    """
    # Indices first: while a file that they list is missing, the directory does not pass for converted.
    for index in directory.glob("*.bin.index.json"):
        _convert_index(index)
    written = []
    for number, source in enumerate(files := torch_files(directory), start=1):
        report(f"Converting {source.name} to safetensors ({number} of {len(files)})")
        written.append(_convert_file(source))
    return written


def safetensors_name(name: str) -> str:
    """pytorch_model-00001-of-00002.bin as model-00001-of-00002.safetensors."""
    return Path(name).stem.removeprefix("pytorch_") + ".safetensors"


def _convert_file(source: Path) -> Path:
    target = source.with_name(safetensors_name(source.name))
    with _whole(target) as draft:
        save_file(_separate(_load(source)), draft, metadata={"format": "pt"})
    return target


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A draft beside `target`, which takes its place at the end unless something fails."""
    # A folder of its own: servers in two containers that share the directory may have the same process id.
    with TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        draft = Path(folder) / target.name
        yield draft
        draft.replace(target)


def _load(source: Path) -> dict[str, torch.Tensor]:
    try:
        content = torch.load(source, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(source))
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UnsupportedModel(
            f"{source} could not be read as plain tensors, and code inside a pickle is never run: {error}"
        ) from error
    if not isinstance(content, dict):
        raise UnsupportedModel(f"{source} holds a {type(content).__name__}, expected named tensors")
    strays = [repr(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if strays:
        raise UnsupportedModel(f"{source} holds {', '.join(strays[:3])} beside its tensors, expected tensors only")
    return dict(content)


def _separate(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contiguous tensors without shared memory, as safetensors wants them: tied ones are written twice, names kept."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        separate[name] = tensor.clone() if storage in seen else tensor.contiguous()
        seen.add(storage)
    return separate


def _convert_index(index: Path) -> None:
    content = json.loads(index.read_text(encoding="utf-8"))
    content["weight_map"] = {name: safetensors_name(file) for name, file in content["weight_map"].items()}
    target = index.with_name(index.name.removeprefix("pytorch_").replace(".bin.", ".safetensors."))
    with _whole(target) as draft:
        draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
