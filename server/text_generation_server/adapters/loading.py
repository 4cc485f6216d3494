"""From settings to a rank's adapters, with those named at the start in host memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from text_generation_server.adapters.files import locate_adapter
from text_generation_server.adapters.known import AdapterDevice, AdapterFacts
from text_generation_server.adapters.matching import match
from text_generation_server.adapters.pairs import read_adapter
from text_generation_server.adapters.rank import LoraAdapters, NoAdapters, RankAdapters
from text_generation_server.adapters.reader import Ask, RanksReader, nobody
from text_generation_server.adapters.registry import AdapterRegistry
from text_generation_server.adapters.sources import USUAL_RANK, AdapterSettings, AdapterSource
from text_generation_server.adapters.targets import targets_of
from text_generation_server.errors import UnsupportedModel
from text_generation_server.layers.linear import Adaptable
from text_generation_server.weights.remote import HubSettings, Report


@dataclass(frozen=True, slots=True)
class StartedAdapters:
    """A rank's adapters, and what was read of those that are named at the start. base: what the model is called."""

    own: RankAdapters
    named: tuple[tuple[AdapterSource, AdapterFacts], ...] = ()
    settings: AdapterSettings = field(default_factory=AdapterSettings)
    base: str = ""

    def registry(self, device: AdapterDevice, ask: Ask = nobody) -> AdapterRegistry:
        """Rank 0's names of them. ask: asks all followers."""
        reader = RanksReader(self.own, ask) if self.own.places else None
        registry = AdapterRegistry(
            *(device, reader, self.own.places, self.settings.host_places, self.base),
            strict=self.settings.asked,
            lenient=self.settings.unknown_is_base,
        )
        for source, facts in self.named:
            registry.add_read(source, facts)
        return registry


NO_ADAPTERS = StartedAdapters(NoAdapters())
"""Of a model that has none."""


def start_adapters(
    settings: AdapterSettings,
    linears: Sequence[Adaptable],
    dtype: torch.dtype,
    device: torch.device,
    hub: HubSettings,
    base: str,
    report: Report,
) -> StartedAdapters:
    """Read the named adapters, and make places if anything was said of adapters.

    Raises StartError for one that cannot be served.
    """
    if not linears or not settings.device_places:
        if settings.named:
            raise UnsupportedModel(
                "adapters are neither for models that run through transformers' code nor for --deterministic, and "
                "need --max-device-loras: leave out LORA_ADAPTERS and --lora-ids, or merge an adapter into the model"
            )
        return NO_ADAPTERS
    directories = [locate_adapter(source, hub, report) for source in settings.named]
    largest, of_experts = _largest_ranks(directories, linears)
    own = LoraAdapters(
        *(linears, settings.device_places, settings.rank or max(largest, USUAL_RANK), dtype, device),
        *(settings.host_places, of_experts if settings.expert_rank is None else settings.expert_rank),
    )
    facts = [own.read(key, directory) for key, directory in enumerate(directories, start=1)]
    if settings.named:
        report(f"Read the adapters {', '.join(source.name for source in settings.named)}")
    if settings.asked:
        own.reserve()
    return StartedAdapters(own, tuple(zip(settings.named, facts, strict=True)), settings, base)


def _largest_ranks(directories: Sequence[Path], linears: Sequence[Adaptable]) -> tuple[int, int]:
    """Those of pairs to other linears than experts', and to experts."""
    targets = targets_of(linears)
    experts, largest = targets.experts, [0, 0]
    for directory in directories:
        for name, pair in match(read_adapter(directory), targets).items():
            largest[name in experts] = max(largest[name in experts], pair.rank)
    return largest[0], largest[1]
