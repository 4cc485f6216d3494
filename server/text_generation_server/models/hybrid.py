"""Decoders some of whose layers keep a recurrence's state in place of keys and values: two states in one model.

All else is `models/decoder.py`'s. Knows neither specs nor checkpoints.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, cast

from torch import Tensor

from text_generation_server.cache.layout import RowLayout
from text_generation_server.cache.recurrent import RecurrentState, RecurrentStateSpec
from text_generation_server.cache.states import StateSpec
from text_generation_server.layers.linear import LinearStep
from text_generation_server.layers.recurrence import Answers, RecurrentPlan, ReplayedPlan
from text_generation_server.models.decoder import Decoder, LayerStep
from text_generation_server.models.recurrent import RecurrentStep, SsdMixer
from text_generation_server.models.step import StepInput


@dataclass(frozen=True, slots=True)
class HybridPlan:
    """Preparations for both kinds of layers, of a step or of those that it is replayed for.

    attention: an `AttentionPlan`; of replayed steps a `DecodePlan` or a `TokenPlan`, as `recurrence` is.
    """

    attention: Any
    recurrence: RecurrentPlan | ReplayedPlan

    def suits(self, *lens: Sequence[int]) -> bool:
        """See `DecodePreparation` and `TokenPreparation`: recurrences suit always."""
        return bool(self.attention.suits(*lens))

    def prepare(self, *numbers: Sequence[int]) -> None:
        """See there."""
        self.attention.prepare(*numbers)
        self.recurrence.prepare(*numbers)

    def piece(self, first: int, past: int, size: int) -> "HybridPlan":
        """The same for one token of the step."""
        return HybridPlan(self.attention.piece(first, past, size), self.recurrence.plan.piece(first, past, size))


@dataclass(frozen=True, slots=True)
class HybridStep(LayerStep):
    """What layers of both kinds share of a step: with these two it is a `RecurrentStep` too."""

    plan: RecurrentPlan
    state: RecurrentState


class RecurrentBranch:
    """A recurrence where other layers have attention; satisfies `Mixer`."""

    def __init__(self, mixer: SsdMixer) -> None:
        self._mixer = mixer

    def __call__(self, x: Tensor, step: LayerStep) -> Tensor:
        """See `Mixer`."""
        return self._mixer(x, cast(RecurrentStep, step))


@dataclass(frozen=True, slots=True, kw_only=True)
class HybridDecoder(Decoder):
    """One rank of a model; satisfies `ServedModel`. recurrent: its other state. answers: see `RecurrentModel`."""

    recurrent: RecurrentStateSpec
    answers: Answers = field(default_factory=Answers)

    @classmethod
    def of(cls, decoder: Decoder, recurrent: RecurrentStateSpec) -> "HybridDecoder":
        """A decoder some of whose blocks have a `RecurrentBranch`."""
        return cls(**{each.name: getattr(decoder, each.name) for each in fields(decoder)}, recurrent=recurrent)

    @property
    def states(self) -> tuple[StateSpec, ...]:
        """See `ServedModel`."""
        return self.kv, self.recurrent

    @property
    def mixing(self) -> str:
        """See `ServedModel`."""
        return f"{self.attention.name} attention and a recurrence"

    def prepare(self, layout: RowLayout) -> HybridPlan:
        """See `ServedModel`."""
        return HybridPlan(self.attention.plan(layout), RecurrentPlan.of(layout))

    def decode_plans(self, rows: Tensor, seq_lens: Tensor, block_table: Tensor) -> Sequence[HybridPlan]:
        """See `ServedModel`."""
        singles = RecurrentPlan.of_singles(rows)
        return [HybridPlan(plan, singles) for plan in self.attention.decode_plans(rows, seq_lens, block_table)]

    def token_plans(self, tokens: int, block_table: Tensor) -> Sequence[HybridPlan]:
        """See `ServedModel`."""
        replayed = ReplayedPlan(tokens, self.device, self.answers)
        return [HybridPlan(plan, replayed) for plan in self.attention.token_plans(tokens, block_table)]

    def layer_step(self, step: StepInput, tokens: LinearStep) -> HybridStep:
        """See `Decoder`."""
        prepared, state = cast(HybridPlan, step.prepared), cast(RecurrentState, step.states[1])
        plain = Decoder.layer_step(self, replace(step, prepared=prepared.attention), tokens)
        shared = {each.name: getattr(plain, each.name) for each in fields(plain)}
        return HybridStep(**shared, plan=prepared.recurrence.plan, state=state)
