"""What an encoder and a decoder that attends to it are, as data: `models/seq2seq.py` runs a spec.

Where a field's value comes from is said by the architecture that sets it.
"""

from dataclasses import dataclass

from text_generation_server.specs.decoder import HeadSpec, MlpSpec, NormSpec, PositionLimit


@dataclass(frozen=True, slots=True)
class RelativeBiasSpec:
    """A number for each head and distance between tokens, added to scores (arXiv 1910.10683, section 2.1).

    buckets: numbers of a head. Half of those of a direction are for the smallest distances, one each; the others for
    larger and larger ranges, up to max_distance.
    """

    buckets: int
    max_distance: int


@dataclass(frozen=True, slots=True)
class StackNames:
    """Where the tensors of an encoder's or a decoder's layers are. Names without `.weight`.

    layer: has a place for the layer's number; but for `bias` and `final_norm`, names are relative to it.
    attention, cross: queries, keys, values, output; cross is empty where there is none. up: gate and up, or the one.
    """

    layer: str
    attention_norm: str
    attention: tuple[str, str, str, str]
    mlp_norm: str
    up: tuple[str, ...]
    down: str
    bias: str
    final_norm: str
    cross_norm: str = ""
    cross: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Seq2SeqNames:
    """Where each tensor is. unused: names of tensors that some checkpoints have and nothing reads.

    family_prefix: may be missing from every name of a checkpoint.
    """

    embedding: str
    encoder: StackNames
    decoder: StackNames
    head: str = "lm_head"
    family_prefix: str = ""
    unused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Seq2SeqSpec:
    """One architecture with its sizes. All attention has the same heads, and scores are not scaled.

    start: the token that every answer begins behind. max_positions: none, as positions are relative.
    """

    vocab_size: int
    hidden_size: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    head_dim: int
    norm: NormSpec
    mlp: MlpSpec
    bias: RelativeBiasSpec
    names: Seq2SeqNames
    head: HeadSpec
    start: int
    max_positions: PositionLimit | None = None

    @property
    def rotates(self) -> bool:
        """Whether positions are rotated into it."""
        return False
