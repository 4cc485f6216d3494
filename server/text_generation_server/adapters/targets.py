"""What adapters can change in a model: linears by name, and what else files call them. Knows no adapter."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from text_generation_server.layers.linear import Adaptable
from text_generation_server.layers.moe import ExpertLinears

Shape = tuple[int, int]
"""Outputs and inputs of a linear."""


@dataclass(frozen=True, slots=True)
class Targets:
    """The linears of a checkpoint.

    shapes: of each, by its name. others: names of some linears by another one that files may have.
    fused: by the name of a parameter that has the weights of all experts of a layer, each expert's linears, whose
    outputs lie there one above the other. aliases: beginnings of names, and what others have in their place.
    """

    shapes: Mapping[str, Shape]
    others: Mapping[str, str] = field(default_factory=dict)
    fused: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    aliases: Sequence[tuple[str, str]] = ()

    def own_name(self, name: str) -> str:
        """What this model calls a module that others may call otherwise.

        >>> Targets({}, aliases=[("model.", "model.language_model.")]).own_name("model.language_model.layers.0.fc")
        'model.layers.0.fc'
        """
        found = (own + name.removeprefix(other) for own, other in self.aliases if name.startswith(other))
        return next(found, name)

    @property
    def experts(self) -> set[str]:
        """The linears of experts."""
        return {name for experts in self.fused.values() for names in experts for name in names}


def targets_of(linears: Iterable[Adaptable]) -> Targets:
    """Those that these are made of."""
    shapes: dict[str, Shape] = {}
    others: dict[str, str] = {}
    fused: dict[str, list[list[str]]] = {}
    aliases: dict[tuple[str, str], None] = {}
    for linear in linears:
        count = linear.experts if isinstance(linear, ExpertLinears) else 1
        copies = [[piece.name.format(copy) for piece in linear.slices] for copy in range(count)]
        for names in copies:
            shapes |= {name: piece.shape for name, piece in zip(names, linear.slices, strict=True)}
        aliases |= dict.fromkeys(linear.aliases)
        others |= {piece.other: piece.name for piece in linear.slices if piece.other}
        if isinstance(linear, ExpertLinears):
            fused[linear.fused] = copies
    return Targets(shapes, others, fused, tuple(aliases))
