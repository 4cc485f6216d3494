"""The seam between engine and models: what a step brings, what a model promises. Knows neither requests nor layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from text_generation_server.cache.layout import DecodePreparation, RowLayout, TokenPreparation
from text_generation_server.cache.rows import RowTable
from text_generation_server.cache.states import State, StateSpec
from text_generation_server.images.types import PreparedImage
from text_generation_server.images.views import View
from text_generation_server.layers.linear import Adaptable
from text_generation_server.specs.crossing import Views
from text_generation_server.specs.vision import Sight

NEWEST = -1
"""In place of a token: the last one that its row chose, which never leaves the device."""

FEATURE = NEWEST - 1
"""In place of a token: the feature of an image at place 0; FEATURE − p is the one at place p."""


@dataclass(frozen=True, slots=True)
class StepInput:
    """One forward over T tokens of several sequences, laid end to end.

    token_ids: [T] int64; where `pictured`, some may be features of images instead.
    positions: [T] int64, of each token in its sequence.
    rows: [T] int64, the row of each token's sequence: where whatever is kept by row is found.
    spans: [T] int64, positions that each token's sequence may reach in all.
    slot_mapping: [T] int64, where each token's keys and values go.
    logit_rows: [L] int64, indices into T whose logits are wanted; None for all, in order.
    prepared: what the model's `prepare`, or a plan of its own, made for this step.
    states: the model's, in the order of its `states`.
    adapters: [T] int64, the place of each token's adapter, 0 for none; None where no row of the step has one.
    """

    token_ids: Tensor
    positions: Tensor
    rows: Tensor
    spans: Tensor
    slot_mapping: Tensor
    logit_rows: Tensor | None
    prepared: object
    states: Sequence[State]
    adapters: Tensor | None = None
    pictured: bool = False


@dataclass(frozen=True, slots=True)
class SourceInput:
    """Inputs of an encoder, of sequences that are being admitted, laid end to end: T tokens.

    rows: of each sequence. lens: tokens of each. token_ids: [T] int64. slots: [T] int64, one for each of them, where
    what is kept of them goes.
    """

    rows: Sequence[int]
    lens: Sequence[int]
    token_ids: Tensor
    slots: Tensor


class SourceEncoder(Protocol):
    """Reads prompts, once, for models whose answers do not continue them."""

    @property
    def start(self) -> int:
        """The token that every answer begins behind."""

    def __call__(self, source: SourceInput, states: Sequence[State]) -> None:
        """Leave in the model's states what its later steps need."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageInput:
    """An image of a sequence that is being admitted. places: [kept] int64, where its features go, in their order."""

    image: PreparedImage
    places: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ImagePlaces:
    """Where images stand in a sequence that is being admitted: the first position and the grid of each, in order.

    slots: of all its positions.
    """

    slots: Sequence[int] | NDArray[np.int64]
    images: Sequence[tuple[int, tuple[int, ...]]]


@dataclass(frozen=True, slots=True, eq=False)
class SeenImages:
    """Images of a sequence that is being admitted, where layers attend to them: what its tokens see of their places.

    places: [n] int64, of all features, in order.
    """

    row: int
    places: NDArray[np.int64]
    views: Sequence[View]


class Reader(Protocol):
    """Reads images, once, and leaves features that stand for tokens at their positions, or what layers attend to."""

    @property
    def sight(self) -> Sight:
        """Which positions see what is behind them, so that a step has to have all of it (`RowLayout.blocks`)."""

    @property
    def views(self) -> Views | None:
        """Which images tokens see where layers attend to them; None where features stand at positions."""

    def places(self, num_rows: int) -> int:
        """How many features there is room for beside so many rows."""

    def place(self, sequences: Sequence[ImagePlaces], states: Sequence[State]) -> None:
        """Learn where images stand in all sequences that are being admitted, those without any too."""

    def __call__(self, images: Sequence[ImageInput], states: Sequence[State], seen: Sequence[SeenImages] = ()) -> None:
        """Leave what becomes of images in the model's states, and there what rows see, if there are `views`."""


@dataclass(frozen=True, slots=True)
class StepBuilder:
    """Where every step's input is put together: eager ones, recorded ones, and those that are run by hand.

    table: where the slots, spans, newest tokens and adapters of the rows are. states: the model's.
    adapted: whether rows may have adapters.
    Everything is read from there by row, on the device, so that what is built once may be replayed for other numbers.
    """

    table: RowTable
    states: Sequence[State]
    adapted: bool = False

    def __call__(
        self,
        token_ids: Tensor,
        positions: Tensor,
        rows: Tensor,
        prepared: object,
        logit_rows: Tensor | None = None,
        pictured: bool = False,
    ) -> StepInput:
        """A step of tokens [T] at these positions [T] of these rows [T], all int64; for the rest see `StepInput`."""
        return StepInput(
            token_ids=token_ids,
            positions=positions,
            rows=rows,
            spans=self.table.spans[rows],
            slot_mapping=self.table.block_table[rows, positions],
            logit_rows=logit_rows,
            prepared=prepared,
            states=self.states,
            adapters=self.table.adapters[rows] if self.adapted else None,
            pictured=pictured,
        )

    def newest(self, rows: Tensor) -> Tensor:
        """The last token [T] that each of these rows [T] chose."""
        return self.table.last_token[rows]

    def token_ids(self, given: Tensor, rows: Tensor) -> Tensor:
        """The tokens [T] that are given, and where NEWEST stands the row's last."""
        return torch.where(given == NEWEST, self.newest(rows), given)


class ServedModel(Protocol):
    """One rank of a loaded model."""

    @property
    def states(self) -> Sequence[StateSpec]:
        """What to allocate for it."""

    @property
    def dtype(self) -> torch.dtype:
        """Of its logits."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def mixing(self) -> str:
        """The name, for logs, of what lets tokens see each other."""

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""

    @property
    def max_positions(self) -> int | None:
        """Positions it can address, None if unbounded."""

    @property
    def linears(self) -> Sequence[Adaptable]:
        """Those to which something may be added before the first step; none where a model allows no such thing."""

    @property
    def records(self) -> bool:
        """Whether steps can be recorded: nothing in them waits for the device or depends on numbers of the host."""

    @property
    def encoder(self) -> SourceEncoder | None:
        """What reads prompts; None where a prompt is the beginning of its answer."""

    @property
    def reader(self) -> Reader | None:
        """What reads images; None where it takes none."""

    def prepare(self, layout: RowLayout) -> object:
        """What it needs to know of one step beyond its tokens, for `StepInput.prepared`."""

    def decode_plans(self, rows: Tensor, seq_lens: Tensor, block_table: Tensor) -> Sequence[DecodePreparation]:
        """The same for recorded steps of one token a row, of as many rows as `rows` [R] and `seq_lens` [R] have.

        Those are int64 on the device, read anew by every replay. The first plan that suits is to be used, the last
        suits always; there are none if the model cannot be replayed.
        """

    def token_plans(self, tokens: int, block_table: Tensor) -> Sequence[TokenPreparation]:
        """The same for recorded steps of `tokens` tokens, prompts among them: the first that suits, if one does."""

    def hidden(self, step: StepInput) -> Tensor:
        """What `logits` is to be made of [L, …]; the last layer need not go on with any other token."""

    def logits(self, hidden: Tensor, rows: Tensor | None) -> Tensor:
        """Logits [L, vocab_size] in the model's dtype, the same on every rank, of these rows of `hidden` or of all."""


def forward(model: ServedModel, step: StepInput) -> Tensor:
    """Logits [L, vocab_size] of a step."""
    return model.logits(model.hidden(step), None)


def at_least_one(rows: Tensor | None) -> Tensor | None:
    """No kernel needs to know of products of nothing: where no token is wanted, the first one is computed."""
    return rows.new_zeros(1) if rows is not None and not len(rows) else rows
