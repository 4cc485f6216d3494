"""Experts of coded weights, made plain as they are needed. Knows no router, no names and no format.

Dimensions: T tokens, E experts, k chosen ones a token, I inner size of an expert on this rank.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.kernels.matmul.config import LEAST_SIZE
from text_generation_server.layers.activation import gated_activation
from text_generation_server.layers.moe import (
    ExpertBiases,
    ExpertsAddend,
    ExpertsKernel,
    NothingAdded,
    PairsAddend,
    added_to,
    pairs_of,
    with_bias,
)
from text_generation_server.quantization.coded import Coded, as_stored
from text_generation_server.quantization.coded_kernels import plain_weights
from text_generation_server.quantization.dense_experts import DenseExperts
from text_generation_server.quantization.stacked import arranged
from text_generation_server.quantization.tuning import DTYPES
from text_generation_server.specs.activation import Activation

MOST_PAIRS = 1 << 12
"""Of a token and a choice. From here on it is not the reading of weights that takes the time."""


class CodedExperts(ExpertsKernel):
    """The gated MLPs of all experts, one above the other: up [E · 2 I, hidden], gates first, and down [E · hidden, I].

    On a GPU nothing waits for the device. Where there is no kernel, and for many tokens, weights are made plain: of few
    tokens each choice's, of many all experts'.
    """

    def __init__(
        self, up: Coded, kind: Activation, down: Coded, experts: int, biases: ExpertBiases | None = None
    ) -> None:
        self._experts = experts
        self._biases = biases
        self._up_bias = None if biases is None else biases.up
        self._down_bias = None if biases is None else biases.down
        self._kind = kind
        self._up, self._down = (_Stack(weights, experts) for weights in (up, down))
        self._activation = gated_activation(kind)
        self._numbers = torch.arange(experts, device=up.codes.device)

    def __call__(self, x: Tensor, experts: Tensor, weights: Tensor, addend: ExpertsAddend | None = None) -> Tensor:
        """See `ExpertsKernel`."""
        if x.device.type == "cpu":
            return self._one_by_one(x, experts, weights, addend)
        if experts.numel() <= MOST_PAIRS and self._up.multiplies and self._down.multiplies:
            return self.by_expert(x, experts, weights, addend)
        if experts.numel() < self._experts:
            return self.by_choice(x, experts, weights, addend)
        return self.all_at_once(x, experts, weights, addend)

    def _one_by_one(self, x: Tensor, experts: Tensor, weights: Tensor, addend: ExpertsAddend | None = None) -> Tensor:
        """Each expert's weights made plain once, if any token wants them."""
        out = torch.zeros_like(x)
        for number in torch.unique(experts):
            token, choice = (experts == number).nonzero(as_tuple=True)
            added = added_to(addend, token, number.expand(len(token)))
            outer = self._expert(x[token], number[None], added)
            out.index_add_(0, token, outer * weights[token, choice, None])
        return out

    def by_expert(self, x: Tensor, experts: Tensor, weights: Tensor, addend: ExpertsAddend | None = None) -> Tensor:
        """As the kernel does: sorted by expert, each expert's weights read once."""
        chosen, order = experts.flatten().sort()
        ends = torch.searchsorted(chosen, self._numbers, right=True, out_int32=True)
        to_up, to_down = (order, ends, experts.shape[1], self._up_bias), (order, ends, 1, self._down_bias)
        if addend is None:
            inner = self._up.multiply(x, *to_up, self._kind)
            outer = self._down.multiply(inner, *to_down, None)
        else:
            rows, added = pairs_of(x, experts, addend)
            inner = self._activation(added.up(rows)(self._up.multiply(x, *to_up, None)))
            outer = added.down(inner)(self._down.multiply(inner, *to_down, None))
        return (outer.view(*experts.shape, -1) * weights[:, :, None]).sum(1)

    def all_at_once(self, x: Tensor, experts: Tensor, weights: Tensor, addend: ExpertsAddend | None = None) -> Tensor:
        """All experts' weights made plain."""
        up, down = (stack.plain(self._numbers) for stack in (self._up, self._down))
        return DenseExperts(up, self._kind, down, self._biases)(x, experts, weights, addend)

    def by_choice(self, x: Tensor, experts: Tensor, weights: Tensor, addend: ExpertsAddend | None = None) -> Tensor:
        """Each choice's weights made plain, of all choices at once."""
        numbers = experts.flatten()
        rows, added = pairs_of(x, experts, addend)
        first = with_bias(torch.bmm(self._up.plain(numbers), rows[..., None])[..., 0], self._up_bias, numbers)
        inner = self._activation(added.up(rows)(first))
        last = with_bias(torch.bmm(self._down.plain(numbers), inner[..., None])[..., 0], self._down_bias, numbers)
        outer = added.down(inner)(last)
        return (outer.view(*experts.shape, -1) * weights[:, :, None]).sum(1)

    def _expert(self, x: Tensor, number: Tensor, added: PairsAddend | NothingAdded) -> Tensor:
        first = with_bias(F.linear(x, self._up.plain(number)[0]), self._up_bias, number)
        inner = self._activation(added.up(x)(first))
        return added.down(inner)(with_bias(F.linear(inner, self._down.plain(number)[0]), self._down_bias, number))


class _Stack:
    """The coded matrices of all experts, as they are to be multiplied."""

    def __init__(self, weights: Coded, experts: int) -> None:
        self._weight, self._order = weights.packed()
        self._experts = experts
        self._inputs = weights.shape[1]

    @property
    def multiplies(self) -> bool:
        """Whether there is a kernel."""
        return self._weight.dtype in DTYPES and self._weight.size >= LEAST_SIZE[self._weight.code.bits]

    def multiply(
        self, x: Tensor, order: Tensor, ends: Tensor, shared: int, bias: Tensor | None, kind: Activation | None
    ) -> Tensor:
        """See `packed_experts`."""
        from text_generation_server.kernels.matmul.packed_experts import packed_experts  # Triton: on CUDA devices

        return packed_experts(arranged(x, self._order), self._weight, order, ends, shared, kind, bias)

    def plain(self, numbers: Tensor) -> Tensor:
        """[n, out, in], of the experts with these numbers [n] on the device."""
        every = self._weight
        some = every.with_outputs(
            lambda values: values.view(len(values), self._experts, -1, *values.shape[2:])[:, numbers].flatten(1, 2)
        )
        return as_stored(plain_weights(some), self._order, self._inputs).view(len(numbers), -1, self._inputs)
