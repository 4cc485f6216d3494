"""What a model is, as data, whose tokens see each other through recurrences alone: `models/recurrent.py` runs a spec.

Where a field's value comes from is said by the architecture that sets it.
"""

from dataclasses import dataclass

from text_generation_server.specs.activation import Activation
from text_generation_server.specs.decoder import HeadSpec, NormSpec, PositionLimit


@dataclass(frozen=True, slots=True)
class SsmSpec:
    """A selective state space layer (arXiv 2312.00752).

    inner_size: channels. state_size: numbers that each of them remembers. conv_width: inputs that the convolution
    before it sees. step_rank: of the projection to time steps. bias: of the projections in and out.
    parts_eps: of norms without weights of time steps, B and C; None for none.
    """

    inner_size: int
    state_size: int
    conv_width: int
    step_rank: int
    activation: Activation
    bias: bool = False
    conv_bias: bool = True
    parts_eps: float | None = None


@dataclass(frozen=True, slots=True)
class RecurrentNames:
    """Where each tensor is. Names without `.weight` and `.bias`, but for `decay` and `skip`, which are complete.

    family_prefix: may be missing from every name of a checkpoint. layer: has a place for the layer's number; from
    `norm` to `projection_out`, names are relative to it.
    """

    family_prefix: str
    embedding: str
    layer: str
    norm: str
    projection_in: str
    conv: str
    selection: str
    time_step: str
    decay: str
    skip: str
    projection_out: str
    final_norm: str
    head: str = "lm_head"


@dataclass(frozen=True, slots=True)
class RecurrentSpec:
    """One architecture with its sizes: every layer is x += ssm(norm(x)).

    wide_residual: x is kept in float32, whatever layers compute in.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    norm: NormSpec
    ssm: SsmSpec
    names: RecurrentNames
    head: HeadSpec
    wide_residual: bool = True
    max_positions: PositionLimit | None = None

    @property
    def rotates(self) -> bool:
        """Whether positions are rotated into it."""
        return False
