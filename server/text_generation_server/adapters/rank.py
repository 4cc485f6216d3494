"""One rank's adapters: packed in host memory by key, and those that are at places on the device.

Reading is for any thread; what touches the device is for the stream. Knows no names, no requests and no other rank.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from loguru import logger

from text_generation_server.adapters.bank import BankLayout, LoraBank, PackedAdapter
from text_generation_server.adapters.known import AdapterFacts
from text_generation_server.adapters.matching import match
from text_generation_server.adapters.pairs import LoraPair, read_adapter
from text_generation_server.adapters.targets import targets_of
from text_generation_server.errors import UnsupportedModel
from text_generation_server.layers.linear import Adaptable
from text_generation_server.layers.moe import ExpertLinears


class RankAdapters(Protocol):
    """What the ranks do with adapters, in the same order on each."""

    @property
    def places(self) -> int:
        """How many adapters can be on the device."""

    @property
    def reserved(self) -> bool:
        """Whether the places are there."""

    def read(self, key: int, directory: Path) -> AdapterFacts:
        """Take the adapter in a directory into host memory. For any thread.

        Raises StartError if it cannot be served; the text says why.
        """

    def reserve(self) -> None:
        """Make the places, if they are not there. Raises torch.OutOfMemoryError."""

    def release(self) -> None:
        """Undo that."""

    def put(self, key: int, place: int) -> None:
        """Let an adapter in host memory be at a place, as from the next work in the stream."""

    def drop(self, key: int) -> None:
        """Forget what is in host memory under a key, if there is something."""


class NoAdapters:
    """Satisfies `RankAdapters` for a model that has none."""

    places = 0
    reserved = False

    def read(self, key: int, directory: Path) -> AdapterFacts:
        """Raises UnsupportedModel."""
        raise UnsupportedModel("this model has no adapters")

    def reserve(self) -> None:
        """There is nothing to make."""

    release = reserve

    def put(self, key: int, place: int) -> None:
        """Nothing was read."""

    def drop(self, key: int) -> None:
        """Nothing was read."""


class LoraAdapters:
    """Satisfies `RankAdapters` for a model's linears.

    rank, expert_rank: of the largest pair that there is room for, of experts and of other linears. kept: adapters for
    which host memory is pinned with the places.
    """

    def __init__(
        self,
        linears: Sequence[Adaptable],
        places: int,
        rank: int,
        dtype: torch.dtype,
        device: torch.device,
        kept: int = 0,
        expert_rank: int = 0,
    ) -> None:
        self.places = places
        self._kept = kept
        self._targets = targets_of(linears)
        self._layouts = layouts_of(linears, rank, expert_rank)
        self._dtype = dtype
        self._device = device
        self._packed: dict[int, Sequence[PackedAdapter]] = {}
        self._banks: Sequence[LoraBank] = ()

    @property
    def reserved(self) -> bool:
        """See `RankAdapters`."""
        return bool(self._banks)

    @property
    def held(self) -> int:
        """How many are in host memory."""
        return len(self._packed)

    def read(self, key: int, directory: Path) -> AdapterFacts:
        """See `RankAdapters`."""
        before = _stamps(directory)
        adapter = read_adapter(directory)
        pairs = match(adapter, self._targets)
        packed = self._pack(pairs)
        digest = hashlib.sha256()
        for path in _files(directory):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        if _stamps(directory) != before:
            raise UnsupportedModel(f"the files in {directory} changed while they were read: load them again")
        self._packed[key] = packed
        targets = sorted({name.rpartition(".")[2] for name in pairs})
        return AdapterFacts(max(pair.rank for pair in pairs.values()), tuple(targets), digest.hexdigest())

    def reserve(self) -> None:
        """See `RankAdapters`."""
        if not self.reserved:
            self._banks = [LoraBank(layout, self.places, self._dtype, self._device) for layout in self._layouts]
            self._pin_ahead()
            ranks = " and of experts up to ".join(str(layout.rank) for layout in self._layouts)
            size = sum(bank.nbytes for bank in self._banks) / 1e6
            logger.info(
                "{} places for adapters of rank up to {}: {:.1f} MB each, {:.1f} MB on this rank",
                *(self.places, ranks, size / self.places, size),
            )

    def release(self) -> None:
        """See `RankAdapters`."""
        self._banks = ()
        for linear, _ in (placed for layout in self._layouts for placed in layout.linears):
            linear.addend = None

    def put(self, key: int, place: int) -> None:
        """See `RankAdapters`."""
        for bank, packed in zip(self._banks, self._packed[key], strict=True):
            bank.put(place, packed)

    def drop(self, key: int) -> None:
        """See `RankAdapters`."""
        self._packed.pop(key, None)

    def _pack(self, pairs: dict[str, LoraPair]) -> list[PackedAdapter]:
        experts = self._targets.experts & pairs.keys()
        others = {name: pair for name, pair in pairs.items() if name not in experts}
        both = (others, {name: pairs[name] for name in experts})
        if experts and len(self._layouts) < 2:
            largest = max(pairs[name].rank for name in experts)
            raise UnsupportedModel(
                f"the adapter changes experts, for which there is no room: start with --max-lora-expert-rank {largest}"
            )
        pinned = self._device.type == "cuda"
        return [layout.pack(part, self._dtype, pinned) for layout, part in zip(self._layouts, both, strict=False)]

    def _pin_ahead(self) -> None:
        """Let PyTorch have pinned memory ready: pinning takes many steps' time, in which nothing may be launched."""
        if self._device.type != "cuda":
            return
        more = range(self._kept - len(self._packed))
        try:
            blocks = [
                torch.empty(layout.rows * layout.size, dtype=self._dtype, pin_memory=True)
                for layout in self._layouts
                for _ in more
            ]
        except RuntimeError as error:
            logger.warning("Host memory for {} adapters cannot be pinned ahead: {}", len(more), error)
        else:
            del blocks  # which are lent again


def layouts_of(linears: Sequence[Adaptable], rank: int, expert_rank: int) -> list[BankLayout]:
    """For all linears but experts', and for those if there is room for pairs of some rank."""
    in_order = sorted(linears, key=lambda linear: linear.slices[0].name)
    experts = [linear for linear in in_order if isinstance(linear, ExpertLinears)]
    layouts = [BankLayout([linear for linear in in_order if linear not in experts], rank)]
    if experts and expert_rank:
        layouts.append(BankLayout(experts, expert_rank, experts[0].experts, "--max-lora-expert-rank"))
    return layouts


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("adapter_*") if path.suffix in (".json", ".safetensors", ".bin"))


def _stamps(directory: Path) -> list[tuple[str, int, int, int]]:
    """What changes when one of an adapter's files does."""
    stats = [(path.name, path.stat()) for path in _files(directory)]
    return [(name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
