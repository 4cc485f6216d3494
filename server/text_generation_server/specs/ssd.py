"""What a state space layer of heads is, as data."""

import math
from dataclasses import dataclass

from text_generation_server.specs.activation import Activation


@dataclass(frozen=True, slots=True)
class SsdNames:
    """Where a layer's tensors are, relative to it. Names without suffix, but for those of numbers a head: complete."""

    projection_in: str
    conv: str
    step_bias: str
    decay: str
    skip: str
    norm: str
    projection_out: str


@dataclass(frozen=True, slots=True)
class SsdSpec:
    """A state space layer whose channels are heads that forget as a whole (Mamba 2, arXiv 2405.21060).

    state_size: numbers that each channel remembers. groups: of heads, each with a B and a C for all of them, and with a
    norm of its own. conv_width: inputs that the convolution of channels, B and C sees. bias: of the projections in and
    out. norm_eps: of the norm behind the gate. step_limit: between which time steps are kept.
    """

    heads: int
    head_dim: int
    state_size: int
    groups: int
    conv_width: int
    activation: Activation
    norm_eps: float
    names: SsdNames
    bias: bool = False
    conv_bias: bool = True
    step_limit: tuple[float, float] = (0.0, math.inf)

    @property
    def inner_size(self) -> int:
        """Channels."""
        return self.heads * self.head_dim

    @property
    def conv_channels(self) -> int:
        """Of the convolution: channels, B and C."""
        return self.inner_size + 2 * self.groups * self.state_size
