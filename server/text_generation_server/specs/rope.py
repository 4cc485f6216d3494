"""What a rotary embedding is, and how it is stretched to longer contexts."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LinearScaling:
    """Positions divided by `factor`."""

    factor: float


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """Long wavelengths divided by `factor`, short ones kept, a blend between (Llama 3.1)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int


@dataclass(frozen=True, slots=True)
class YarnScaling:
    """A ramp from interpolated to kept frequencies, and sharper attention (arXiv 2309.00071)."""

    factor: float
    original_max_positions: int
    beta_fast: float
    beta_slow: float
    attention_factor: float
    truncate: bool


@dataclass(frozen=True, slots=True)
class DynamicScaling:
    """A larger theta for sequences beyond the original context, the larger the longer they are ("dynamic NTK")."""

    factor: float
    original_max_positions: int


@dataclass(frozen=True, slots=True)
class LongropeScaling:
    """Divisors [dim / 2] of the frequencies: one set up to the original context, one beyond (arXiv 2402.13753)."""

    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    original_max_positions: int
    attention_factor: float


RopeScaling = LinearScaling | Llama3Scaling | YarnScaling | DynamicScaling | LongropeScaling


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary embedding of the first `dim` numbers of each head (arXiv 2104.09864).

    Pairs (i, i + dim/2); interleaved: (2i, 2i + 1).
    axes: by which of a token's coordinates each pair turns, 0 for time, 1 for row, 2 for column (arXiv 2409.12191,
    section 2.1); empty where all turn by its position.
    """

    dim: int
    theta: float
    scaling: RopeScaling | None = None
    interleaved: bool = False
    axes: tuple[int, ...] = ()

    @property
    def depends_on_span(self) -> bool:
        """Whether sequences of different length are rotated differently."""
        return isinstance(self.scaling, DynamicScaling | LongropeScaling)
