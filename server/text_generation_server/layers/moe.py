"""A mixture of experts (arXiv 2101.03961): every token through the few experts its router chooses. Knows no checkpoint.

How experts are computed depends on the form of their weights: `quantization/`.

Dimensions: T tokens, E experts, k chosen experts a token, n pairs of a token and one of its experts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from text_generation_server.layers.linear import Adaptable, Addend, ColumnParallelLinear, LinearSlice, LinearStep


class Router:
    """Chooses by softmax over all experts, on every rank. normalise: order of the norm that chosen weights are divided
    by, or None.
    """

    def __init__(self, linear: ColumnParallelLinear, top_k: int, normalise: float | None) -> None:
        self._linear = linear
        self._top_k = top_k
        self._normalise = normalise

    def __call__(self, x: Tensor, step: LinearStep) -> tuple[Tensor, Tensor]:
        """[T, hidden] to the chosen experts and their weights, [T, k] each."""
        scores = self._linear(x, step)
        if scores.is_cuda:
            from text_generation_server.kernels.experts.routing import (
                route,
            )  # only there is Triton sure to be installed

            return route(scores, self._top_k, self._normalise, x.dtype)
        weights, experts = scores.float().softmax(-1).topk(self._top_k)
        if self._normalise is not None:
            weights = weights / torch.linalg.vector_norm(weights, self._normalise, -1, keepdim=True)
        return experts, weights.to(x.dtype)


@dataclass(frozen=True, slots=True)
class ExpertBiases:
    """Of one rank's part of all experts, in the type that is computed with.

    up: [E, 2 · inner], gates first. down: [E, hidden], None where another rank adds it.
    """

    up: Tensor
    down: Tensor | None


def with_bias(out: Tensor, bias: Tensor | None, experts: Tensor) -> Tensor:
    """Outputs [n, out] of the experts with these numbers [n], to which theirs of bias [E, out] are added, in place."""
    return out if bias is None else out.add_(bias[experts])


class ExpertLinears(Adaptable):
    """One rank's part of a linear of every expert, all alike.

    slices: of each expert's; names have a place for its number. fused: what a parameter is called that has all experts'
    weights, those of the slices one above the other.
    """

    def __init__(self, slices: Sequence[LinearSlice], by_outputs: bool, experts: int, fused: str) -> None:
        super().__init__(slices)
        self.by_outputs = by_outputs
        self.experts = experts
        self.fused = fused


Add = Callable[[Tensor], Tensor]
"""Adds to outputs, maybe in place."""


@dataclass(frozen=True, slots=True)
class PairsAddend:
    """What adapters add to the products of some pairs. numbers: [n], of each one's adapter and expert, 0 for none."""

    numbers: Tensor
    step: LinearStep
    first: Addend
    last: Addend

    def up(self, x: Tensor) -> Add:
        """To gates and others [n, 2 I] of x [n, hidden], before the activation; see `Addend`."""
        return self.first(x, self.numbers, self.step)

    def down(self, x: Tensor) -> Add:
        """To the outputs [n, hidden] of x [n, I]."""
        return self.last(x, self.numbers, self.step)


class NothingAdded:
    """In place of a `PairsAddend` where no token has an adapter."""

    def up(self, x: Tensor) -> Add:
        """Outputs as they are."""
        return lambda out: out

    down = up


@dataclass(frozen=True, slots=True)
class ExpertsAddend:
    """What adapters add to experts' products. adapters: [T] int64, the number of each token's, 0 for none."""

    adapters: Tensor
    experts: int
    up: Addend
    down: Addend

    def of_pairs(self, tokens: Tensor, experts: Tensor) -> PairsAddend:
        """Of these pairs, [n] int64 each, in the order in which a kernel has them."""
        adapters = self.adapters[tokens]
        numbers = torch.where(adapters == 0, 0, (adapters - 1) * self.experts + experts + 1)
        return PairsAddend(numbers, LinearStep(numbers), self.up, self.down)


def added_to(addend: ExpertsAddend | None, tokens: Tensor, experts: Tensor) -> PairsAddend | NothingAdded:
    """See `ExpertsAddend.of_pairs`; nothing for None."""
    return NothingAdded() if addend is None else addend.of_pairs(tokens, experts)


def pairs_of(x: Tensor, experts: Tensor, addend: ExpertsAddend | None) -> tuple[Tensor, PairsAddend | NothingAdded]:
    """Inputs [T · k, hidden] of all pairs, a token's after the other's, and what is added to their products."""
    tokens = torch.arange(len(x), device=x.device).repeat_interleave(experts.shape[1])
    return x[tokens], added_to(addend, tokens, experts.flatten())


class ExpertsKernel(Protocol):
    """The gated MLPs of all experts."""

    def __call__(self, x: Tensor, experts: Tensor, weights: Tensor, addend: ExpertsAddend | None = None) -> Tensor:
        """[T, hidden], and [T, k] as the router gives them, to this rank's part of the sum [T, hidden].

        addend: None where no token has an adapter to experts.
        """


class Experts:
    """One rank's part of all experts of a layer, with the linears that adapters may change, if there are such."""

    def __init__(self, kernel: ExpertsKernel, up: ExpertLinears | None, down: ExpertLinears | None) -> None:
        self._kernel = kernel
        self._up, self._down = up, down

    def __call__(self, x: Tensor, experts: Tensor, weights: Tensor, step: LinearStep) -> Tensor:
        """See `ExpertsKernel`."""
        return self._kernel(x, experts, weights, self._addend(step))

    def _addend(self, step: LinearStep) -> ExpertsAddend | None:
        if step.adapters is None or self._up is None or self._down is None:
            return None
        if self._up.addend is None or self._down.addend is None:
            return None
        return ExpertsAddend(step.adapters, self._up.experts, self._up.addend, self._down.addend)
