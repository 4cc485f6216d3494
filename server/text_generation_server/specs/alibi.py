"""What linear attention biases are."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AlibiSpec:
    """Linear biases (arXiv 2108.12409). `scale` multiplies the slopes; `bf16_slopes` rounds them first."""

    scale: float = 1.0
    bf16_slopes: bool = False
