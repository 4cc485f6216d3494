"""What recurrent layers are, and models of nothing else, as data: `models/recurrent.py` runs a spec.

Where a field's value comes from is said by the architecture that sets it.
"""

from dataclasses import dataclass

from text_generation_server.specs.activation import Activation
from text_generation_server.specs.decoder import HeadSpec, NormSpec, PositionLimit
from text_generation_server.specs.ssd import SsdSpec


@dataclass(frozen=True, slots=True)
class SsmNames:
    """Where a layer's tensors are, relative to it. Names without suffix, but for `decay` and `skip`, complete ones."""

    projection_in: str
    conv: str
    selection: str
    time_step: str
    decay: str
    skip: str
    projection_out: str


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
    names: SsmNames
    bias: bool = False
    conv_bias: bool = True
    parts_eps: float | None = None


@dataclass(frozen=True, slots=True)
class RecurrentNames:
    """Where each tensor is. Names without `.weight` and `.bias`.

    family_prefix: may be missing from every name of a checkpoint. layer: has a place for the layer's number; `norm` is
    relative to it.
    """

    family_prefix: str
    embedding: str
    layer: str
    norm: str
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
    ssm: SsmSpec | SsdSpec
    names: RecurrentNames
    head: HeadSpec
    wide_residual: bool = True
    max_positions: PositionLimit | None = None

    @property
    def rotates(self) -> bool:
        """Whether positions are rotated into it."""
        return False
