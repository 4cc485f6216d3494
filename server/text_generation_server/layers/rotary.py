"""Rotary position embeddings (arXiv 2104.09864): angles once a step, rotation in every layer. Knows no cache."""

from dataclasses import dataclass

import torch
from torch import Tensor

from text_generation_server.layers.frequencies import RopeSpec, attention_factor, inverse_frequencies


@dataclass(frozen=True, slots=True)
class Angles:
    """One step's rotation, [T, 1, dim] each. `sin` is negative in its first half, as a rotation needs it there."""

    cos: Tensor
    sin: Tensor


class Rotary:
    """The rotation of one spec, with frequencies on `device` and tables in `dtype`."""

    def __init__(self, spec: RopeSpec, dtype: torch.dtype, device: torch.device) -> None:
        self._dim = spec.dim
        self._dtype = dtype
        self._frequencies = inverse_frequencies(spec).to(device)
        self._magnitude = attention_factor(spec)

    def angles(self, positions: Tensor) -> Angles:
        """For tokens at these positions [T]."""
        angles = positions[:, None, None].float() * self._frequencies
        cos, sin = angles.cos(), angles.sin()
        if self._magnitude != 1.0:
            cos, sin = cos * self._magnitude, sin * self._magnitude
        return Angles(torch.cat((cos, cos), -1).to(self._dtype), torch.cat((-sin, sin), -1).to(self._dtype))

    def rotate(self, heads: Tensor, angles: Angles) -> None:
        """Rotate queries and keys [T, n, head_dim] in place."""
        x = heads[..., : self._dim]
        swapped = x.roll(self._dim // 2, -1)
        x.mul_(angles.cos).addcmul_(swapped, angles.sin)
