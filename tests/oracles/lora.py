"""Makes adapters to a case's model as PEFT saves them, and the model as it is with one merged into its weights."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from text_generation_server.adapters.loading import StartedAdapters, start_adapters
from text_generation_server.adapters.sources import AdapterSettings, AdapterSource
from text_generation_server.models.step import ServedModel
from text_generation_server.weights.remote import HubSettings


def save_adapter(
    directory: Path, shapes: Mapping[str, tuple[int, int]], rank: int, seed: int, alpha: float = 3.0, **config: Any
) -> dict[str, Tensor]:
    """Save an adapter to these linears, outputs and inputs by name; returns what it adds to each one's weights."""
    directory.mkdir(parents=True)
    randomness = torch.Generator().manual_seed(seed)
    tensors, deltas = {}, {}
    for name, (outputs, inputs) in shapes.items():
        down = torch.randn(rank, inputs, generator=randomness)
        up = torch.randn(outputs, rank, generator=randomness) / 5
        tensors |= {f"base_model.model.{name}.lora_{side}.weight": half for side, half in (("A", down), ("B", up))}
        deltas[name] = alpha / rank * up @ down
    save_file(tensors, directory / "adapter_model.safetensors")
    targets = sorted({".".join(name.split(".")[-2:]) for name in shapes})
    written = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": targets, "bias": "none"}
    (directory / "adapter_config.json").write_text(json.dumps(written | config))
    return deltas


def save_merged(model: Path, deltas: Mapping[str, Tensor], directory: Path) -> Path:
    """A copy of a saved model with these changes of its linears' weights, which GPT-2's files store [in, out]."""
    transposed = json.loads((model / "config.json").read_text())["model_type"] == "gpt2"
    tensors = load_file(model / "model.safetensors")
    for name, delta in deltas.items():
        stored = stored_name(name, tensors)
        tensors[stored] = (tensors[stored] + (delta.T if transposed else delta)).contiguous()
    directory.mkdir(parents=True)
    save_file(tensors, directory / "model.safetensors")
    shutil.copy(model / "config.json", directory)
    return directory


def started(model: ServedModel, named: Mapping[str, Path], **settings: Any) -> StartedAdapters:
    """These adapters read for a model, as when a shard starts. settings: others of `AdapterSettings`."""
    sources = tuple(AdapterSource(name, str(place)) for name, place in named.items())
    hub = HubSettings(Path("/nowhere"), offline=True)
    asked = AdapterSettings(sources, **settings)
    return start_adapters(asked, model.linears, model.dtype, model.device, hub, "base", lambda _: None)


def place(model: ServedModel, directories: Sequence[Path]) -> None:
    """Let adapters be at the places 1, 2, …"""
    adapters = started(model, {str(at): directory for at, directory in enumerate(directories)})
    for key in range(1, len(directories) + 1):
        adapters.own.put(key, key)


def stored_name(name: str, tensors: Mapping[str, Tensor]) -> str:
    """Hub files of some families lack the family's prefix, and some call a text part so."""
    full = f"{name}.weight"
    others = full.partition(".")[2], full.replace("model.", "model.language_model.", 1)
    return next(one for one in (full, *others) if one in tensors)
