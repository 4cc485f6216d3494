"""A model whose tokens come out the same, bit for bit, whatever else is in their step (`--deterministic`).

Kernels are chosen by the number of rows, and another kernel's sums are rounded otherwise. So a step is computed in
pieces of few fixed sizes, the last one filled up, and only of sizes that give the same bits on this machine: which
these are is tried when the model is loaded, on the model itself, so that nothing here knows its layers or their
kernels. One token at a time is invariant whatever kernels do; larger sizes are what make it cheap. Knows no engine.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast

import torch
from loguru import logger
from torch import Tensor

from text_generation_server.cache.layout import RowLayout
from text_generation_server.cache.states import StateSpec, allocate
from text_generation_server.distributed.group import TensorParallel
from text_generation_server.models.step import Reader, ServedModel, StepInput

SIZES = (16, 8, 4, 2, 1)
"""Tokens of a piece, if they prove to be interchangeable. Larger ones save little, since 16 tokens share the reading of
the weights, and norms of more tokens than that are computed otherwise."""

ONE_BY_ONE = (1,)
"""For models in which a token's kernels depend on more than the size of the step: no trial could tell."""


class Divisible(Protocol):
    """What a model has prepared for a step, where its tokens do not share work."""

    def piece(self, first: int, past: int, size: int) -> object:
        """The same for tokens [first, past) of the step, the last of them repeated until there are `size`."""


@dataclass(frozen=True, slots=True)
class InvariantModel:
    """Satisfies `ServedModel`. model: one that prepares steps as something `Divisible`. sizes: of pieces, falling.

    linears: none, as sizes are tried without what would be added to them.
    """

    model: ServedModel
    sizes: tuple[int, ...]
    linears: tuple[()] = ()
    records: bool = False
    encoder: None = None

    @property
    def states(self) -> Sequence[StateSpec]:
        """See `ServedModel`."""
        return self.model.states

    @property
    def dtype(self) -> torch.dtype:
        """See `ServedModel`."""
        return self.model.dtype

    @property
    def device(self) -> torch.device:
        """See `ServedModel`."""
        return self.model.device

    @property
    def mixing(self) -> str:
        """See `ServedModel`."""
        return self.model.mixing

    @property
    def vocab_size(self) -> int:
        """See `ServedModel`."""
        return self.model.vocab_size

    @property
    def max_positions(self) -> int | None:
        """See `ServedModel`."""
        return self.model.max_positions

    @property
    def reader(self) -> Reader | None:
        """See `ServedModel`."""
        return self.model.reader

    def prepare(self, layout: RowLayout) -> object:
        """See `ServedModel`."""
        return self.model.prepare(layout)

    def decode_plans(self, rows: Tensor, seq_lens: Tensor, block_table: Tensor) -> tuple[()]:
        """See `ServedModel`: none, as steps are cut into pieces."""
        return ()

    def token_plans(self, tokens: int, block_table: Tensor) -> tuple[()]:
        """See `ServedModel`: none."""
        return ()

    def hidden(self, step: StepInput) -> Tensor:
        """See `ServedModel`."""
        wanted = step.logit_rows
        found: list[Tensor] = []
        at: list[Tensor] = []
        for first, past, size in pieces(len(step.token_ids), self.sizes):
            piece = self.model.hidden(_cut(step, first, past, size))[: past - first]
            if wanted is not None:  # the others are dropped at once: what some models have for a token is long
                here = ((wanted >= first) & (wanted < past)).nonzero()[:, 0]
                at.append(here)
                piece = piece[wanted[here] - first]
            found.append(piece)
        hidden = torch.cat(found)
        return hidden if wanted is None else torch.empty_like(hidden).index_copy_(0, torch.cat(at), hidden)

    def logits(self, hidden: Tensor, rows: Tensor | None) -> Tensor:
        """See `ServedModel`."""
        x = hidden if rows is None else hidden[rows]
        if not len(x):
            return self.model.logits(x, None)
        parts = pieces(len(x), self.sizes)
        return torch.cat([self.model.logits(_filled(x[a:b], size), None)[: b - a] for a, b, size in parts])


def pieces(tokens: int, sizes: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    """Begin and end of each piece of so many tokens, and the size that it is to be filled up to; `sizes` fall."""
    for first in range(0, tokens, sizes[0]):
        past = min(first + sizes[0], tokens)
        yield first, past, next(size for size in reversed(sizes) if size >= past - first)


def _cut(step: StepInput, first: int, past: int, size: int) -> StepInput:
    """What fills up is the last token again: it writes what is written already."""
    prepared = cast(Divisible, step.prepared)
    return replace(
        step,
        token_ids=_filled(step.token_ids[first:past], size),
        positions=_filled(step.positions[first:past], size),
        rows=_filled(step.rows[first:past], size),
        spans=_filled(step.spans[first:past], size),
        slot_mapping=_filled(step.slot_mapping[first:past], size),
        logit_rows=None,
        prepared=prepared.piece(first, past, size),
    )


def _filled(x: Tensor, size: int) -> Tensor:
    """[t, …] to [size, …] with the last again and again."""
    return x if len(x) == size else torch.cat((x, x[-1:].expand(size - len(x), *x.shape[1:])))


def invariant(model: ServedModel, group: TensorParallel, allowed: tuple[int, ...] = SIZES) -> InvariantModel:
    """The model in pieces of sizes that are interchangeable here, of those `allowed`, which fall to 1."""
    trial = _Trial(model, lambda alike: bool(group.min(alike)))
    base = next(size for size in allowed if trial.ignores_company(size))
    sizes = base, *(size for size in allowed if size < base and trial.agree(size, base))
    logger.info("Deterministic: steps are computed in pieces of {} tokens", ", ".join(map(str, sizes)))
    return InvariantModel(model, sizes)


class _Trial:
    """Tries sizes on random tokens, each a sequence of its own. agreed: whether all ranks say so."""

    def __init__(self, model: ServedModel, agreed: Callable[[bool], bool]) -> None:
        self._model = model
        self._agreed = agreed
        self._states = allocate(model.states, SIZES[0], SIZES[0], SIZES[0])
        randomness = torch.Generator().manual_seed(0)
        self._ids = torch.randint(model.vocab_size, (2 * SIZES[0],), generator=randomness)

    def ignores_company(self, size: int) -> bool:
        """Whether a piece gives a token the same bits at every place, and beside every other token."""
        if size == 1:
            return True
        ids, half = torch.arange(size), size // 2
        before = self._run(ids)
        back = self._run(ids.flip(0)).flip(0)
        moved = self._run(torch.cat((ids[:half] + SIZES[0], ids[: size - half])))[half:]
        return self._agreed(torch.equal(before, back) and torch.equal(before[: size - half], moved))

    def agree(self, size: int, base: int) -> bool:
        """Whether tokens in pieces of `size` have the bits that they have in one of `base`."""
        ids = torch.arange(base)
        parts = torch.cat([self._run(part) for part in torch.split(ids, size)])
        return self._agreed(torch.equal(self._run(ids), parts))

    @torch.inference_mode()
    def _run(self, numbers: Tensor) -> Tensor:
        """Hidden state and logits of the tokens with these numbers; a number stands for an id and a position too."""
        model, count = self._model, len(numbers)
        places = torch.arange(count)
        positions = numbers % min(SIZES[0], model.max_positions or SIZES[0])
        layout = RowLayout.of(range(count), [1] * count, [1] * count, places[:, None])
        step = StepInput(
            token_ids=self._ids[numbers],
            positions=positions,
            rows=places,
            spans=positions + 1,
            slot_mapping=places,
            logit_rows=None,
            prepared=model.prepare(layout),
            states=self._states,
        )
        hidden = model.hidden(step)
        return torch.cat((hidden, model.logits(hidden, None)), -1)
