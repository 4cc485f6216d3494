"""Linears spread over ranks. Knows no checkpoint and no form of weights: it is given finished kernels.

Each remembers which slices of which linears of the checkpoint it is made of, and is told of the step whose tokens it
multiplies, so that something may be added to its outputs by slice and by sequence: adapters are such.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeVar

from torch import Tensor

from text_generation_server.distributed.group import TensorParallel
from text_generation_server.layers.activation import gated_activation
from text_generation_server.specs.activation import Activation

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class LinearStep:
    """What a linear may know of the tokens that it multiplies, T of a step or the L of them that are `wanted`.

    adapters: [T] or [L] int64, the number of each one's adapter, 0 for none; None where no row of the step has one.
    wanted: [L] int64, indices into T; None for all.
    """

    adapters: Tensor | None
    wanted: Tensor | None = None
    _made: dict[Any, Any] = field(default_factory=dict)

    def once(self, make: Callable[[Tensor], M], adapters: Tensor) -> M:
        """What `make` makes of the adapters, which all linears of the step share."""
        if make not in self._made:
            self._made[make] = make(adapters)
        found: M = self._made[make]
        return found

    def narrowed(self, wanted: Tensor | None) -> Self:
        """The same of these tokens [L], indices into all; of all for None."""
        if wanted is None:
            return self
        return type(self)(None if self.adapters is None else self.adapters[wanted], wanted)


@dataclass(frozen=True, slots=True)
class LinearSlice:
    """Part of a linear of the checkpoint within one that is computed.

    name: of the checkpoint's linear, without suffix. shape: its outputs and inputs. taken: which of its outputs they
    are, or of its inputs where the one that is computed is cut along those: a range, or numbers [n] int64.
    start: where they begin there. What is behind the last, up to the next slice, is padding.
    other: what else files call the linear, none for nothing.
    """

    name: str
    shape: tuple[int, int]
    taken: slice | Tensor
    start: int
    other: str = ""


Offer = Callable[[], object]
"""What an addend would leave to a kernel; called by one that knows how, it says what is to be added."""


class LinearKernel(Protocol):
    """A finished linear, bias included."""

    def __call__(self, x: Tensor) -> Tensor:
        """[T, in] to [T, out]."""

    def with_addend(self, x: Tensor, offer: Offer) -> Tensor | None:
        """The same with what an addend offers, in one; None where it cannot do that, without taking the offer."""
        return None

    def gated(self, kind: Activation) -> "LinearKernel":
        """What makes act(gate) · other [T, out / 2] of [T, in], where the first half of the outputs are gates.

        Kernels may be chosen for that: use it instead of the plain product, before the first step.
        """
        return GatedLinear(self, kind)


class GatedLinear(LinearKernel):
    """An activation behind a product."""

    def __init__(self, product: LinearKernel, kind: Activation) -> None:
        self._product = product
        self._function = gated_activation(kind)

    def __call__(self, x: Tensor) -> Tensor:
        """[T, in] to [T, out / 2]."""
        return self._function(self._product(x))


class Addend(Protocol):
    """What is added to the outputs of a linear for some of the sequences of a step."""

    def __call__(self, x: Tensor, adapters: Tensor, step: LinearStep) -> Callable[[Tensor], Tensor]:
        """What adds to the outputs [T, out] of x [T, in], before any activation and before ranks are summed.

        It may do so in place. What depends on x alone is begun here, in front of the product, which then hides its
        time. adapters: the step's, [T]; it is not asked in steps where no row has one.
        """

    def offer(self, x: Tensor, adapters: Tensor, step: LinearStep) -> Offer | None:
        """The same, for the product's kernel to do with its own; None where that is no use."""


class Adaptable:
    """What adapters may change: products with slices of the checkpoint's linears.

    by_outputs: whether the slices are of outputs, else of inputs. addend: of the outputs, None for none; may be set
    before steps are recorded. aliases: beginnings of its slices' names, and what others have in their place.
    """

    by_outputs = True
    aliases: Sequence[tuple[str, str]] = ()

    def __init__(self, slices: Sequence[LinearSlice]) -> None:
        self.slices = tuple(slices)
        self.addend: Addend | None = None


class ParallelLinear(Adaptable):
    """One rank's part of a linear."""

    def __init__(self, kernel: LinearKernel, slices: Sequence[LinearSlice]) -> None:
        super().__init__(slices)
        self._kernel = kernel

    def _multiply(self, x: Tensor, step: LinearStep) -> Tensor:
        if self.addend is None or step.adapters is None:
            return self._kernel(x)
        if (made := self._with_addend(self._kernel, x, step)) is not None:
            return made
        add = self.addend(x, step.adapters, step)
        return add(self._kernel(x))

    def _with_addend(self, kernel: LinearKernel, x: Tensor, step: LinearStep) -> Tensor | None:
        """By one kernel that does both, if it can."""
        if self.addend is None or step.adapters is None:
            return None
        offer = self.addend.offer(x, step.adapters, step)
        return None if offer is None else kernel.with_addend(x, offer)


class ColumnParallelLinear(ParallelLinear):
    """Each rank computes some of the outputs from all inputs. slices: of outputs."""

    def __call__(self, x: Tensor, step: LinearStep) -> Tensor:
        """[T, in] to this rank's outputs [T, out / world_size]."""
        return self._multiply(x, step)

    def gated(self, kind: Activation) -> Callable[[Tensor, LinearStep], Tensor]:
        """What makes act(gate) · other of this rank's outputs, of which the first half are gates."""
        fused, function = self._kernel.gated(kind), gated_activation(kind)

        def act(x: Tensor, step: LinearStep) -> Tensor:
            if self.addend is None or step.adapters is None:
                return fused(x)
            made = self._with_addend(fused, x, step)
            return function(self._multiply(x, step)) if made is None else made

        return act


class RowParallelLinear(ParallelLinear):
    """Each rank computes a part of every output, from its share of the inputs. Only rank 0's kernel has the bias.

    slices: of inputs.
    """

    by_outputs = False

    def __init__(self, kernel: LinearKernel, slices: Sequence[LinearSlice], group: TensorParallel) -> None:
        super().__init__(kernel, slices)
        self._group = group

    def __call__(self, x: Tensor, step: LinearStep) -> Tensor:
        """This rank's inputs [T, in / world_size] to the outputs [T, out]."""
        return self._group.all_reduce(self._multiply(x, step))

    def partial(self, x: Tensor, step: LinearStep) -> Tensor:
        """This rank's part of the outputs' sums, for a caller that adds more before it reduces."""
        return self._multiply(x, step)
