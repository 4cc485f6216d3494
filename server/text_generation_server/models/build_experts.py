"""Makes one rank's part of the experts of a layer, in whichever way their tensors lie. Knows no architecture."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.layers.moe import ExpertBiases, ExpertLinears, Experts
from text_generation_server.models.tensors import StoredLinear, TensorReader, slices_of
from text_generation_server.specs.decoder import MoeSpec
from text_generation_server.specs.names import MoeNames
from text_generation_server.weights.layout import Partition, Place


class ExpertsBuilder:
    """Of inner numbers `mine`. is_first: of the ranks, whose outputs are summed, this is the one that adds biases."""

    def __init__(
        self, spec: MoeSpec, names: MoeNames, hidden_size: int, reader: TensorReader, mine: Partition, is_first: bool
    ) -> None:
        self._spec, self._names, self._hidden = spec, names, hidden_size
        self._reader = reader
        self._mine = mine
        self._is_first = is_first
        self._apart = "{}" in names.down
        self._fused = len(names.up) == 1
        takes = self._apart or (self._fused and reader.scheme.stacks)
        self._scheme = reader.scheme if takes else reader.dense

    def layer(self, prefix: str) -> Experts:
        """The experts of a layer whose tensors' names start with `prefix`.

        Those that lie in one tensor are plain in most forms, and no adapters change them.
        """
        mine, hidden = self._mine, self._hidden
        gates, others = (
            [matrix.select_out(mine.rows).pad(mine.padded, hidden) for matrix in half] for half in self._halves(prefix)
        )
        kernel = self._scheme.experts(
            up=[gate.join_out([other]) for gate, other in zip(gates, others, strict=True)],
            down=[matrix.select_in(mine.rows).pad(hidden, mine.padded) for matrix in self._down(prefix)],
            kind=self._spec.activation,
            biases=self._biases(prefix) if self._spec.bias else None,
        )
        return Experts(kernel, *(self._linears(prefix) if self._apart else (None, None)))

    def _halves(self, prefix: str) -> list[list[Any]]:
        """Each expert's gate [inner, hidden], and what it lets through."""
        names, inner = self._names, self._spec.inner_size
        if not self._fused:
            return [self._read(prefix + name, inner, self._hidden) for name in names.up]
        both = self._read(prefix + names.up[0], 2 * inner, self._hidden)
        return [[matrix.select_out(rows) for matrix in both] for rows in self._rows_of_halves()]

    def _rows_of_halves(self) -> tuple[slice, slice]:
        inner = self._spec.inner_size
        if self._names.taking_turns:
            return slice(0, 2 * inner, 2), slice(1, 2 * inner, 2)
        return slice(0, inner), slice(inner, 2 * inner)

    def _down(self, prefix: str) -> list[Any]:
        name, inner = prefix + self._names.down, self._spec.inner_size
        if self._apart or self._fused:
            return self._read(name, self._hidden, inner)
        return [matrix.transpose() for matrix in self._read(name, inner, self._hidden)]

    def _read(self, name: str, outputs: int, inputs: int) -> list[Any]:
        """A matrix [out, in] of each expert."""
        experts, checkpoint = self._spec.experts, self._reader.checkpoint
        if self._apart:
            return [self._reader.matrix(StoredLinear(name.format(one), outputs, inputs)) for one in range(experts)]
        if self._fused:
            return self._scheme.stacked(checkpoint, name, experts, (outputs, inputs), self._names.inputs_first)
        every = checkpoint.view(name, (experts * outputs, inputs)).view(experts, outputs, inputs)
        return [self._reader.dense.matrix(one) for one in every]

    def _biases(self, prefix: str) -> ExpertBiases:
        mine, spec, (up,) = self._mine, self._spec, self._names.up
        both = self._bias(prefix + up, 2 * spec.inner_size)
        halves = (both[:, rows][:, mine.rows] for rows in self._rows_of_halves())
        padded = torch.cat([F.pad(half, (0, mine.padded - half.shape[1])) for half in halves], 1)
        down = prefix + self._names.down
        if not self._is_first:
            self._reader.checkpoint.leave(f"{down}_bias")
        return ExpertBiases(padded, self._bias(down, self._hidden) if self._is_first else None)

    def _bias(self, name: str, outputs: int) -> Tensor:
        return self._reader.tensor(f"{name}_bias", (self._spec.experts, outputs))

    def _linears(self, prefix: str) -> Sequence[ExpertLinears]:
        """What adapters may change, told to the reader."""
        spec, names, mine, hidden = self._spec, self._names, self._mine, self._hidden
        gates_first = [StoredLinear(prefix + name, spec.inner_size, hidden) for name in names.up]
        last = [StoredLinear(prefix + names.down, hidden, spec.inner_size)]
        places = [Place(at, mine.rows, mine.padded) for at in range(len(names.up))]
        whole = prefix + names.fused
        linears = (
            ExpertLinears(slices_of(gates_first, places), True, spec.experts, f"{whole}.gate_up_proj"),
            ExpertLinears(slices_of(last, places[:1]), False, spec.experts, f"{whole}.down_proj"),
        )
        self._reader.offer(*linears)
        return linears
