"""Makes one rank's MLP of each layer, dense or sparse, from a spec and a checkpoint. Knows no architecture."""

from collections.abc import Sequence
from math import lcm

from text_generation_server.distributed.group import TensorParallel
from text_generation_server.layers.activation import activation
from text_generation_server.layers.linear import ColumnParallelLinear
from text_generation_server.layers.moe import Router
from text_generation_server.models.build_experts import ExpertsBuilder
from text_generation_server.models.decoder import DenseMlp, Inner, Mlp, SharedExpert, SparseMlp
from text_generation_server.models.tensors import StoredLinear, TensorReader
from text_generation_server.specs.decoder import DecoderSpec, MlpSpec, MoeSpec
from text_generation_server.specs.names import MoeNames
from text_generation_server.weights.layout import Place, partition_of, up_places

EXPERT_ALIGNMENT = 8
"""Inner sizes of experts are padded to multiples of this: grouped products on a GPU want rows of 16 bytes."""


class MlpBuilder:
    """Cuts inner sizes over ranks, those of experts too: every rank has a part of every expert."""

    def __init__(self, spec: DecoderSpec, reader: TensorReader, group: TensorParallel) -> None:
        self._spec = spec
        self._reader = reader
        self._group = group

    def layer(self, prefix: str, layer: int) -> Mlp:
        """The MLP of a layer whose tensors' names start with `prefix`."""
        moe, names = self._spec.moe, self._spec.names
        if moe is None or names.moe is None or layer in moe.dense_layers:
            return self._dense(self._spec.mlp, prefix, names.up, names.down)
        return self._sparse(moe, prefix, names.moe)

    def _dense(self, spec: MlpSpec, prefix: str, up: tuple[str, ...], down: str) -> DenseMlp:
        names = [prefix + name for name in up]
        return build_dense_mlp(self._reader, self._group, spec, self._spec.hidden_size, names, prefix + down)

    def _sparse(self, spec: MoeSpec, prefix: str, names: MoeNames) -> SparseMlp:
        hidden, reader = self._spec.hidden_size, self._reader
        alignment = lcm(EXPERT_ALIGNMENT, reader.scheme.alignment)
        mine = partition_of(spec.inner_size, self._group.rank, self._group.world_size, alignment)
        router = StoredLinear(prefix + names.router, spec.experts, hidden)
        experts = ExpertsBuilder(spec, names, hidden, reader, mine, self._group.rank == 0)
        return SparseMlp(
            Router(reader.small(router, prefix + names.fused_router, spec.router_bias), spec.top_k, spec.normalise),
            experts.layer(prefix),
            self._shared(spec, prefix, names) if spec.shared_size else None,
            self._group,
        )

    def _shared(self, spec: MoeSpec, prefix: str, names: MoeNames) -> SharedExpert:
        mlp, gate = MlpSpec(spec.shared_size, spec.activation, gated=True), None
        if names.shared_gate:
            gate = self._reader.small(StoredLinear(prefix + names.shared_gate, 1, self._spec.hidden_size))
        return SharedExpert(self._dense(mlp, prefix, names.shared_up, names.shared_down), gate)


def build_dense_mlp(
    reader: TensorReader,
    group: TensorParallel,
    spec: MlpSpec,
    hidden: int,
    up: Sequence[str],
    down: str,
    wide: TensorReader | None = None,
    outputs: int | None = None,
) -> DenseMlp:
    """An MLP whose linears have these whole names: gate and up, or one for both, gate first, or the one.

    wide: reads the last linear, to answer in float32; None where that answers as the others do.
    outputs: how many there are, if not as many as inputs.
    """
    size = spec.inner_size * (2 if spec.gated and len(up) == 1 else 1)
    mine = partition_of(spec.inner_size, group.rank, group.world_size)
    places = up_places(len(up), spec.gated, spec.inner_size, mine)
    first = reader.column([StoredLinear(name, size, hidden) for name in up], places, spec.bias)
    inner, last = _inner(first, spec), StoredLinear(down, outputs or hidden, spec.inner_size)
    linear = (wide or reader).row(last, [Place(0, mine.rows, mine.padded)], spec.bias, group)
    return DenseMlp(inner if wide is None else lambda x, step: inner(x, step).float(), linear)


def _inner(up: ColumnParallelLinear, spec: MlpSpec) -> Inner:
    """What stands between an MLP's input and its last linear."""
    if spec.gated:
        return up.gated(spec.activation)
    function = activation(spec.activation)
    return lambda x, step: function(up(x, step))
