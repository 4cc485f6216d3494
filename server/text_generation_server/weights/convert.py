"""Rewrites PyTorch .bin and .pt files as safetensors. Knows no hub, and never runs code that a pickle holds."""

import json
import pickle
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from text_generation_server.errors import StartError, UnsupportedModel
from text_generation_server.modelfiles import BEGINNING, read_object, refuse_pointer
from text_generation_server.weights.files import PICKLED, SAFETENSORS, weight_files


def convert_torch_files(directory: Path, report: Callable[[str], None]) -> list[Path]:
    """Write a safetensors file beside each of the model's PyTorch files, and an index where they have one.

    One file is in memory at a time; each appears whole or not at all.

    Raises:
        UnsupportedModel: a file holds anything but named tensors.
        StartError: the directory cannot be written to.
    """
    weights = weight_files(directory, PICKLED)
    try:
        # The index first: while a file that it lists is missing, the directory does not pass for converted.
        if weights.entry == PICKLED.index:
            _convert_index(directory)
        written = []
        for number, name in enumerate(weights.names, start=1):
            report(f"Converting {name} to safetensors ({number} of {len(weights.names)})")
            written.append(_convert_file(directory / name))
        return written
    except (OSError, SafetensorError) as error:  # the second is what the library makes of the first
        raise StartError(
            f"{weights.names[0]} could not be converted in {directory} ({error}): copy the directory to where there is "
            "room and it can be written"
        ) from error


def safetensors_name(name: str) -> str:
    """pytorch_model-00001-of-00002.bin as model-00001-of-00002.safetensors."""
    return Path(name).stem.removeprefix("pytorch_") + ".safetensors"


def _convert_file(source: Path) -> Path:
    target = source.with_name(safetensors_name(source.name))
    with _whole(target) as draft:
        save_file(_separate(load_pickle(source)), draft, metadata={"format": "pt"})
    return target


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A draft beside `target`, which takes its place at the end unless something fails."""
    # A folder of its own: servers in two containers that share the directory may have the same process id.
    with TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        draft = Path(folder) / target.name
        yield draft
        draft.replace(target)


def load_pickle(source: Path) -> dict[str, torch.Tensor]:
    """The tensors of a PyTorch file by name. Raises UnsupportedModel for whatever else is in it."""
    with source.open("rb") as file:
        refuse_pointer(source, file.read(BEGINNING))
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


def _convert_index(directory: Path) -> None:
    content = read_object(directory / PICKLED.index)
    homes = {name: safetensors_name(file) for name, file in content.section("weight_map").values.items()}
    with _whole(directory / SAFETENSORS.index) as draft:
        draft.write_text(json.dumps({**content.values, "weight_map": homes}, indent=2) + "\n", encoding="utf-8")
