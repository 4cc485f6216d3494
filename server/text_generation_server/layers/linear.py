"""Linears spread over ranks. Knows no checkpoint and no form of weights: it is given finished kernels."""

from typing import Protocol

from torch import Tensor

from text_generation_server.distributed.group import TensorParallel
from text_generation_server.layers.activation import Elementwise, gated_activation
from text_generation_server.specs.activation import Activation


class LinearKernel(Protocol):
    """A finished linear, bias included."""

    def __call__(self, x: Tensor) -> Tensor:
        """[T, in] to [T, out]."""

    def gated(self, kind: Activation) -> Elementwise:
        """What makes act(gate) · other [T, out / 2] of [T, in], where the first half of the outputs are gates.

        Kernels may be chosen for that: use it instead of the plain product, before the first step.
        """
        function = gated_activation(kind)
        return lambda x: function(self(x))


class ColumnParallelLinear:
    """Each rank computes some of the outputs from all inputs."""

    def __init__(self, kernel: LinearKernel) -> None:
        self._kernel = kernel

    def __call__(self, x: Tensor) -> Tensor:
        """[T, in] to this rank's outputs [T, out / world_size]."""
        return self._kernel(x)

    def gated(self, kind: Activation) -> Elementwise:
        """What makes act(gate) · other of this rank's outputs, of which the first half are gates."""
        return self._kernel.gated(kind)


class RowParallelLinear:
    """Each rank computes a part of every output, from its share of the inputs. Only rank 0's kernel has the bias."""

    def __init__(self, kernel: LinearKernel, group: TensorParallel) -> None:
        self._kernel = kernel
        self._group = group

    def __call__(self, x: Tensor) -> Tensor:
        """This rank's inputs [T, in / world_size] to the outputs [T, out]."""
        return self._group.all_reduce(self._kernel(x))

    def partial(self, x: Tensor) -> Tensor:
        """This rank's part of the outputs' sums, for a caller that adds more before it reduces."""
        return self._kernel(x)
