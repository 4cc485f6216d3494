"""The recurrence of a state space layer of heads (Mamba 2, arXiv 2405.21060) over the tokens of a step.

Knows no weights' names and no ranks. Dimensions: T tokens of the step, H heads of the rank with P channels each, G
groups of heads, N numbers that a row remembers of each channel.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.layers.recurrence import RecurrentPlan

TOKENS_AT_ONCE = 64
"""Of a prompt: a chunk's tokens see each other by one matrix product, and those before it by what is kept of them."""


@dataclass(frozen=True, slots=True)
class SsdWeights:
    """Of each head [H], all float32. decay: below 0. skip: how much of an input its output has. step_bias.

    head_dim: P. groups: G. limits: between which steps are kept.
    """

    decay: Tensor
    skip: Tensor
    step_bias: Tensor
    head_dim: int
    groups: int
    limits: tuple[float, float]


class Ssd(Protocol):
    """S = S · exp(step · decay) + step · x ⊗ B; y = (S · C + skip · x) · silu(gate); in float32, rounded once."""

    def __call__(self, inputs: Tensor, gate: Tensor, steps: Tensor, sums: Tensor, plan: RecurrentPlan) -> Tensor:
        """To y [T, H · P], a new tensor. sums: [rows, H · P, N] float32, S of each row, goes on.

        inputs: [T, H · P + 2 · G · N], x, then B, then C. gate: [T, H · P]. steps: [T, H], before bias and softplus.
        """


class TorchSsd:
    """With torch's operators: single tokens of all rows together, prompts in chunks."""

    def __init__(self, weights: SsdWeights) -> None:
        self._weights = weights

    def __call__(self, inputs: Tensor, gate: Tensor, steps: Tensor, sums: Tensor, plan: RecurrentPlan) -> Tensor:
        """See `Ssd`."""
        weights, width = self._weights, gate.shape[1]
        x, write, read = torch.split(inputs.float(), [width, *[(inputs.shape[1] - width) // 2] * 2], 1)
        x = x.view(len(x), -1, weights.head_dim)
        share = x.shape[1] // weights.groups
        write, read = (
            each.view(len(x), weights.groups, -1).repeat_interleave(share, 1) for each in (write, read)
        )  # [T, H, N]
        steps = F.softplus(steps.float() + weights.step_bias).clamp(*weights.limits)
        every = steps * weights.decay, x * steps[..., None], write, read
        if plan.are_singles:
            out = self._singles(sums, plan.rows, *every)
        else:
            out = torch.zeros_like(x)
            for row, first, past in plan.on_host():
                self._prompt(sums[row], out[first:past], *(each[first:past] for each in every))
        out = out.addcmul_(x, weights.skip[:, None]).flatten(1)
        return out.mul_(F.silu(gate.float())).to(gate.dtype)

    def _singles(self, sums: Tensor, rows: Tensor, fade: Tensor, x: Tensor, write: Tensor, read: Tensor) -> Tensor:
        now = sums[rows].view(*x.shape, -1).mul_(fade.exp()[..., None, None])
        now.addcmul_(x[..., None], write[:, :, None])
        sums.index_copy_(0, rows, now.flatten(1, 2))
        return torch.matmul(now, read[..., None])[..., 0]

    def _prompt(self, sums: Tensor, out: Tensor, fade: Tensor, x: Tensor, write: Tensor, read: Tensor) -> None:
        """[t, H, …] of one row's tokens, whose sums [H · P, N] go on, to out [t, H, P]."""
        before = sums.view(*x.shape[1:], -1)  # [H, P, N]
        pieces = (torch.split(each, TOKENS_AT_ONCE) for each in (out, fade, x, write, read))
        for into, some_fade, some_x, some_write, some_read in zip(*pieces, strict=True):
            faded = some_fade.T.cumsum(1)  # [H, t]
            x_of, write_of, read_of = (each.transpose(0, 1) for each in (some_x, some_write, some_read))
            between = (faded[:, :, None] - faded[:, None]).tril().exp().tril()  # [H, t, t]
            seen = torch.matmul(torch.matmul(read_of, write_of.transpose(1, 2)).mul_(between), x_of)
            seen += torch.matmul(read_of, before.transpose(1, 2)) * faded.exp()[..., None]
            into.copy_(seen.transpose(0, 1))
            left = (faded[:, -1:] - faded).exp()[..., None] * x_of  # [H, t, P]
            before.mul_(faded[:, -1, None, None].exp()).add_(torch.matmul(left.transpose(1, 2), write_of))


class FusedSsd:
    """In one kernel, on CUDA devices."""

    def __init__(self, weights: SsdWeights) -> None:
        from text_generation_server.kernels.recurrence import ssd  # only here is Triton sure to be installed

        self._kernel = ssd.ssd
        self._weights = weights

    def __call__(self, inputs: Tensor, gate: Tensor, steps: Tensor, sums: Tensor, plan: RecurrentPlan) -> Tensor:
        """See `Ssd`."""
        weights = self._weights
        step = sums, plan.rows, plan.ends, plan.are_singles, plan.count, plan.answer("scan", gate)
        per_head = weights.decay, weights.skip, weights.step_bias
        return self._kernel(inputs, gate, steps, *step, *per_head, weights.head_dim, weights.groups, weights.limits)


def ssd(weights: SsdWeights) -> Ssd:
    """The recurrence as the weights' device computes it best."""
    return FusedSsd(weights) if weights.decay.is_cuda else TorchSsd(weights)
