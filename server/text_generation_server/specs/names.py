"""Where a checkpoint has a decoder's tensors, and in which order their rows are."""

from dataclasses import dataclass, replace
from enum import Enum, auto


class QkvLayout(Enum):
    """Order of the rows of queries, keys and values in a checkpoint."""

    SPLIT = auto()
    """Three tensors."""
    CONCAT = auto()
    """One tensor: all q, all k, all v."""
    GROUPED = auto()
    """One tensor: for each key/value head its queries, its key, its value."""
    Q_KV = auto()
    """Two tensors: all q; all k, then all v."""


@dataclass(frozen=True, slots=True)
class MoeNames:
    """Where a sparse layer's tensors are. Names without `.weight`, but for tensors of all experts: those are complete.

    up (gate, then up), down: with a place for the expert's number, weights [out, in]; without one, all experts' rows in
    one tensor [experts · inner, hidden], `down` too. up of one name: each expert's gate, then up, in one tensor
    [experts, 2 · inner, hidden], and `down` [experts, hidden, inner]. taking_turns: its rows are a gate's, then what it
    lets through, and so on. inputs_first: where plain, both are published
    as [experts, in, out], and saved again as often as [experts, out, in]. Their biases [experts, out] have
    the same names and `_bias`.
    shared_up, shared_down: of an expert for all tokens; shared_gate: what lets some of it through, empty for all of it.
    fused, fused_router: what others call the module that has all experts' weights in parameters gate_up_proj and
    down_proj, and the router.
    """

    router: str
    up: tuple[str, ...]
    down: str
    shared_up: tuple[str, ...] = ()
    shared_down: str = ""
    shared_gate: str = ""
    taking_turns: bool = False
    inputs_first: bool = False
    fused: str = "mlp.experts"
    fused_router: str = "mlp.gate"


@dataclass(frozen=True, slots=True)
class CheckpointNames:
    """Where each tensor is. Names without `.weight` and `.bias`; those of layers are relative to `layer`.

    family_prefix: may be missing from every name of a checkpoint. layer: has a place for the layer's number.
    qkv: as many names as its layout says. concat_qkv: of one tensor, laid out as CONCAT, that some checkpoints of the
    family have instead, which no config tells. up: gate and up, or one name for both, gate first, or for the one if not
    gated. Empty names: norms that the wiring does not have, tables and projections that the model does not have.
    q_norm, k_norm: with a place for the head's number if there is a tensor a head. sinks: the whole name.
    embedding_in, embedding_out: linears between embeddings of another width and the hidden state.
    conv1d: linears of layers are stored [in, out].
    aliases: beginnings of names, and what some checkpoints have in their place.
    more_embeddings, more_head: of the vocabulary's last tokens, where those are tensors of their own.
    """

    family_prefix: str
    embedding: str
    layer: str
    attention_norm: str
    mlp_norm: str
    qkv: tuple[str, ...]
    attention_out: str
    up: tuple[str, ...]
    down: str
    final_norm: str
    head: str = "lm_head"
    qkv_layout: QkvLayout = QkvLayout.SPLIT
    concat_qkv: str = ""
    attention_out_norm: str = ""
    mlp_out_norm: str = ""
    q_norm: str = ""
    k_norm: str = ""
    sinks: str = ""
    positions: str = ""
    embedding_norm: str = ""
    embedding_in: str = ""
    embedding_out: str = ""
    conv1d: bool = False
    moe: MoeNames | None = None
    aliases: tuple[tuple[str, str], ...] = ()
    more_embeddings: str = ""
    more_head: str = ""

    def within(self, prefix: str, head: str) -> "CheckpointNames":
        """The same tensors where they are part of another model's, under this prefix in place of the family's."""
        inside = {key: prefix + name.removeprefix(self.family_prefix) for key in _WHOLE if (name := getattr(self, key))}
        return replace(self, family_prefix="", head=head, **inside)


_WHOLE = ("embedding", "layer", "final_norm", "positions", "embedding_norm", "embedding_in", "embedding_out")
"""Those that are not relative to a layer, but for the head."""
