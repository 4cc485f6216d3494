"""Rotary position embeddings (arXiv 2104.09864): angles once a step, rotation in every layer. Knows no attention."""

from dataclasses import dataclass

import torch
from torch import Tensor

from text_generation_server.cache.narrow import UNSCALED, KVScales
from text_generation_server.cache.paged import PagedCache
from text_generation_server.layers.frequencies import attention_factor, axial_frequencies, frequencies
from text_generation_server.specs.rope import RopeSpec


@dataclass(frozen=True, slots=True)
class Angles:
    """One step's rotation, [T, 1, dim] each. `sin` is negative in its first half, as a rotation needs it there."""

    cos: Tensor
    sin: Tensor


class Rotary:
    """The rotation of one spec, with frequencies on `device` and tables in `dtype`."""

    def __init__(self, spec: RopeSpec, dtype: torch.dtype, device: torch.device) -> None:
        self._dtype = dtype
        self._frequencies = frequencies(spec, device)
        self._magnitude = attention_factor(spec)
        self._axes = torch.tensor(spec.axes, device=device) if spec.axes else None

    def angles(self, positions: Tensor, spans: Tensor) -> Angles:
        """For tokens at these positions [T] of sequences that may reach these lengths [T].

        Where the spec has axes: at these coordinates [3, T].
        """
        return _angles(positions, self._frequencies(spans), self._magnitude, self._dtype, self._axes)


class AxialRotary:
    """Half of a head's pairs turn by a patch's row, the others by its column, at the same frequencies. In float32."""

    def __init__(self, dim: int, theta: float, device: torch.device) -> None:
        self._frequencies = axial_frequencies(dim, theta, device)
        self._axes = torch.arange(2, device=device).repeat_interleave(dim // 4)

    def angles(self, places: Tensor) -> Angles:
        """For patches in these rows and columns [2, T] int64."""
        return _angles(places, self._frequencies, 1.0, torch.float32, self._axes)


def _angles(
    positions: Tensor, frequencies: Tensor, magnitude: float, dtype: torch.dtype, axes: Tensor | None
) -> Angles:
    """At positions [T], or with `axes` [dim / 2] at coordinates [n, T]."""
    if positions.is_cuda:
        from text_generation_server.kernels import angles as kernel  # only there is Triton sure to be installed

        return Angles(*kernel.angles(positions, frequencies, magnitude, dtype, axes))
    turned = positions[:, None] if axes is None else positions[axes].T
    angles = (turned.float() * frequencies)[:, None]
    cos, sin = angles.cos(), angles.sin()
    if magnitude != 1.0:
        cos, sin = cos * magnitude, sin * magnitude
    return Angles(torch.cat((cos, cos), -1).to(dtype), torch.cat((-sin, sin), -1).to(dtype))


def rotate(heads: Tensor, angles: Angles) -> None:
    """Rotate queries and keys [T, n, head_dim] in place, in pairs (i, i + dim/2)."""
    dim = angles.cos.shape[-1]
    x = heads[..., :dim]
    swapped = x.roll(dim // 2, -1)
    x.mul_(angles.cos).addcmul_(swapped, angles.sin)


def rotate_and_write(
    qkv: Tensor,
    kv_heads: int,
    angles: Angles | None,
    cache: PagedCache,
    layer: int,
    slots: Tensor,
    scales: KVScales = UNSCALED,
) -> None:
    """Rotate queries and keys of [T, H + 2 · kv_heads, head_dim], and put keys and values into their slots [T].

    Queries are rotated in place; what is left of the keys is not said. Without angles nothing is rotated.
    scales: of the layer, where the cache is narrow.
    """
    if qkv.is_cuda:
        from text_generation_server.kernels import rotary  # only there is Triton sure to be installed

        cos, sin = (None, None) if angles is None else (angles.cos, angles.sin)
        places = cache.keys(layer), cache.values(layer), slots
        return rotary.rotate_and_write(qkv, kv_heads, cos, sin, *places, scales.key, scales.value)
    if angles is not None:
        rotate(qkv[:, :-kv_heads], angles)
    cache.write(layer, slots, qkv[:, -2 * kv_heads :], scales)
