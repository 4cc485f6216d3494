"""The pairs of the adapters that are on the device, and the sum that they add to linears' outputs. Knows no files.

The bank has places, numbered from 1, of one size: an adapter's matrices for all linears lie one after the other in one
row, so that one copy changes what is at a place. Addresses never change, and which adapter a token has is read on the
device: a step may mix them, and is recorded once for every mixture and whatever comes to be at the places.

Linears of experts have a bank of their own, with as many rows an adapter as there are experts, one behind the other: to
linears each of those rows is a place.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from text_generation_server.adapters.pairs import LoraPair
from text_generation_server.adapters.parts import AdaptedLinear, parts_of
from text_generation_server.errors import UnsupportedModel
from text_generation_server.kernels.lora.linear import LoraKernel, UpPart, are_few, splits_of_few
from text_generation_server.kernels.lora.segments import Segments, segments_of
from text_generation_server.kernels.matmul.low_rank import pitch_of
from text_generation_server.layers.linear import Adaptable, LinearStep

ALIGNMENT = 64
"""Numbers; matrices begin at multiples of it, so that kernels read them 16 bytes at a time."""


@dataclass(frozen=True, slots=True)
class PlacedPart:
    """Where a part's matrices are in an adapter's row: [rank, inputs], [outputs, pitch]. index: among all parts."""

    part: AdaptedLinear
    index: int
    down: int
    up: int

    def ups(self, numbers: Tensor, pitch: int) -> Tensor:
        """The second one [outputs, pitch] in a row of numbers, with zeros behind its rank."""
        outputs = self.part.output_count
        return numbers[self.up : self.up + outputs * pitch].view(outputs, pitch)


@dataclass(frozen=True, slots=True)
class PackedAdapter:
    """An adapter as it lies at a place, with `rows` rows.

    numbers: [rows, size]. ranks: [rows, parts] int32, of its pair to each part, 0 for none.
    """

    numbers: Tensor
    ranks: Tensor


class BankLayout:
    """Where an adapter's matrices are, for one rank's linears and pairs of up to `rank`.

    rows: of an adapter; names of linears have a place for the row's number. option: of the command line, for `rank`.
    """

    def __init__(self, linears: Sequence[Adaptable], rank: int, rows: int = 1, option: str = "--max-lora-rank") -> None:
        self.rank = rank
        self.pitch = pitch_of(rank)
        self.rows = rows
        self._option = option
        self.size = self.parts = 0
        self.linears = [(linear, self._placed(parts_of(linear))) for linear in linears]

    def width(self, tokens: int, places: int) -> int:
        """Numbers of each of so many tokens that are between the halves of a product, at most; see `segments_of`."""
        if not are_few(tokens, places, self.rank):
            return 0
        widths = (len(parts) * self.rank * splits_of_few(tokens, parts[0].part.inputs) for _, parts in self.linears)
        return max(widths, default=0)

    def pack(self, pairs: Mapping[str, LoraPair], dtype: torch.dtype, pinned: bool) -> PackedAdapter:
        """These pairs, by the checkpoint's names, in host memory; pinned: for a copy that nobody waits for.

        Raises UnsupportedModel if one has no room.
        """
        largest = max((pair.rank for pair in pairs.values()), default=0)
        if largest > self.rank:
            raise UnsupportedModel(
                f"the adapter has rank {largest}, and places are for up to {self.rank}: start with {self._option} "
                f"{largest}"
            )
        numbers = torch.zeros(self.rows, self.size, dtype=dtype, pin_memory=pinned)
        ranks = torch.zeros(self.rows, self.parts, dtype=torch.int32, pin_memory=pinned)
        for row in range(self.rows):
            self._pack(pairs, row, numbers[row], ranks[row])
        return PackedAdapter(numbers, ranks)

    def _pack(self, pairs: Mapping[str, LoraPair], row: int, numbers: Tensor, ranks: Tensor) -> None:
        """Those of a row, into its numbers [size] and ranks [parts]."""
        for placed in (placed for _, parts in self.linears for placed in parts):
            pair = pairs.get(placed.part.name.format(row))
            if pair is not None:
                down, up = placed.part.down(pair), placed.part.up(pair)
                numbers[placed.down : placed.down + down.numel()].view(down.shape).copy_(down)
                placed.ups(numbers, self.pitch)[:, : pair.rank].copy_(up)
                ranks[placed.index] = pair.rank

    def _placed(self, parts: Sequence[AdaptedLinear]) -> tuple[PlacedPart, ...]:
        """Those of a linear: all its first matrices as one, then its second ones."""
        size = self.rank * parts[0].inputs  # all have the same inputs
        base = self._take(len(parts) * size)
        downs = [base + at * size for at in range(len(parts))]
        ups = [self._take(self.pitch * part.output_count) for part in parts]
        first, self.parts = self.parts, self.parts + len(parts)
        return tuple(
            PlacedPart(part, first + at, down, up)
            for at, (part, down, up) in enumerate(zip(parts, downs, ups, strict=True))
        )

    def _take(self, count: int) -> int:
        start, self.size = self.size, self.size + -(-count // ALIGNMENT) * ALIGNMENT
        return start


class LoraBank:
    """The places of one rank on its device; from its making on, the linears add what is there."""

    def __init__(self, layout: BankLayout, places: int, dtype: torch.dtype, device: torch.device) -> None:
        self._rows = layout.rows
        self._numbers = torch.zeros(places * layout.rows, layout.size, dtype=dtype, device=device)
        self._ranks = torch.zeros(places * layout.rows, layout.parts, dtype=torch.int32, device=device)
        # One for all linears, which share what it makes.
        rows = places * layout.rows
        segments = partial(segments_of, places=rows, width=partial(layout.width, places=rows))
        for linear, parts in layout.linears:
            linear.addend = LoraAddend(parts, self._numbers, self._ranks, layout.rank, segments)

    @property
    def nbytes(self) -> int:
        """Device memory that it takes."""
        return self._numbers.nbytes + self._ranks.nbytes

    def fill(self, rank: int) -> None:
        """Let random adapters of this rank be at all places, for measurements."""
        self._numbers.normal_(0, 0.02)
        self._ranks.fill_(rank)

    def put(self, place: int, adapter: PackedAdapter) -> None:
        """Let the adapter be at a place, as from the next work that is enqueued."""
        rows = slice((place - 1) * self._rows, place * self._rows)
        self._numbers[rows].copy_(adapter.numbers, non_blocking=True)
        self._ranks[rows].copy_(adapter.ranks, non_blocking=True)


class LoraAddend:
    """Satisfies `Addend` for the linear whose `parts` those are: y += up[a] · (down[a] · x) for a token with adapter a.

    numbers, ranks: the bank's, [places, size] and [places, parts]. rank: for which the layout is. segments: makes what
    the kernels know of a step.
    """

    def __init__(
        self,
        parts: Sequence[PlacedPart],
        numbers: Tensor,
        ranks: Tensor,
        rank: int,
        segments: Callable[[Tensor], Segments],
    ) -> None:
        self._parts = tuple(parts)
        self._numbers = numbers
        self._ranks = ranks
        self._rank = rank
        self._of_linear = slice(parts[0].index, parts[-1].index + 1)
        self._kernel = _kernel(parts, numbers, ranks, rank) if numbers.device.type == "cuda" else None
        self._segments = segments

    def __call__(self, x: Tensor, adapters: Tensor, step: LinearStep) -> Callable[[Tensor], Tensor]:
        """See `Addend`; adds in place."""
        if self._kernel is not None:
            return self._kernel(x, step.once(self._segments, adapters))
        return partial(self._add_all, x=x, adapters=adapters, step=step)

    def offer(self, x: Tensor, adapters: Tensor, step: LinearStep) -> Callable[[], object] | None:
        """See `Addend`; a `LowRank`."""
        if self._kernel is None or not are_few(len(x), len(self._numbers), self._rank):
            return None
        segments = step.once(self._segments, adapters)
        return partial(self._kernel.low_rank, adapters, segments) if segments.present is not None else None

    def _add_all(self, out: Tensor, x: Tensor, adapters: Tensor, step: LinearStep) -> Tensor:
        for place, tokens in step.once(tokens_of_places, adapters):
            row, ranks = self._numbers[place - 1], self._ranks[place - 1, self._of_linear].tolist()
            if any(ranks):
                self._add(out, x, tokens, row, ranks)
        return out

    def _add(self, out: Tensor, x: Tensor, tokens: Tensor | None, row: Tensor, ranks: Sequence[int]) -> None:
        """What one adapter makes of its tokens. row: its numbers. ranks: of its pair to each part."""
        first, count = self._parts[0], len(self._parts)
        inputs = first.part.inputs
        own = x[:, :inputs] if tokens is None else x[tokens, :inputs]
        down = row[first.down : first.down + count * self._rank * inputs].view(count * self._rank, inputs)
        inners = (own @ down.T).view(len(own), count, self._rank)
        for at, (placed, rank) in enumerate(zip(self._parts, ranks, strict=True)):
            up = placed.ups(row, pitch_of(self._rank))[:, :rank].T
            inner, target = inners[:, at, :rank], out[:, placed.part.outputs]
            if tokens is None:
                target.addmm_(inner, up)
            else:
                target.index_add_(0, tokens, inner @ up)


def _kernel(parts: Sequence[PlacedPart], numbers: Tensor, ranks: Tensor, rank: int) -> LoraKernel:
    first = parts[0]
    ups = [UpPart(placed.up, placed.part.outputs.start, placed.part.output_count) for placed in parts]
    return LoraKernel(numbers, ranks, rank, first.part.inputs, first.down, ups, first.index)


def tokens_of_places(adapters: Tensor) -> list[tuple[int, Tensor | None]]:
    """The places that some of the tokens [T] have, and which tokens those are, None for all."""
    numbers: list[int] = adapters.tolist()
    places = sorted(set(numbers))
    if len(places) == 1:
        return [(places[0], None)] if places[0] else []
    return [(place, (adapters == place).nonzero()[:, 0]) for place in places if place]
