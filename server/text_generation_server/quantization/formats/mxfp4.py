"""MXFP4 as gpt-oss is published: the experts of a layer in one tensor, everything else plain.

Of weights [out, in] of E experts (`quantization/fp4.py`): `_blocks` uint8 [E, out, in / 32, 16], two numbers a byte,
the first in the last bits; `_scales` uint8 [E, out, in / 32].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from text_generation_server.config.configdict import ConfigDict
from text_generation_server.quantization.dense import DenseScheme
from text_generation_server.quantization.fp4 import MX_SIZE, Fp4Linear
from text_generation_server.quantization.pieces import Stored
from text_generation_server.weights.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Mxfp4:
    """Satisfies `StackedFormat`."""

    dense: DenseScheme
    heads: bool = False
    size: int = MX_SIZE

    @classmethod
    def of(cls, config: ConfigDict, dense: DenseScheme) -> "Mxfp4":
        """By a quantization_config: what is not to be converted is what is no expert, in every file."""
        return cls(dense)

    def find(self, checkpoint: Checkpoint, name: str, shape: tuple[int, int], transposed: bool) -> None:
        """See `Format`: linears by themselves are plain."""

    def stacked(self, checkpoint: Checkpoint, name: str, experts: int, shape: tuple[int, int]) -> Sequence[Stored]:
        """See `StackedFormat`."""
        outputs, inputs = shape
        count = inputs // self.size
        pairs = checkpoint.view(f"{name}_blocks", (experts, outputs, count, self.size // 2), torch.uint8)
        scales = checkpoint.view(f"{name}_scales", (experts, outputs, count), torch.uint8)
        return [Fp4Linear(two, of, self.dense) for two, of in zip(pairs.flatten(2), scales, strict=True)]
