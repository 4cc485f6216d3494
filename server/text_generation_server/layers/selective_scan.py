"""The recurrence of a selective state space layer (arXiv 2312.00752, algorithm 2) over the tokens of a step.

Knows no weights' names and no ranks. Dimensions: T tokens of the step, D channels of the rank, N numbers that a row
remembers of each channel.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.layers.recurrence import RecurrentPlan

TOKENS_AT_ONCE = 32
"""Of a prompt on a CPU: few enough that what is computed for all of them together stays in its caches."""


@dataclass(frozen=True, slots=True)
class Selected:
    """What each token chooses. steps: [T, D], before their bias and softplus. write, read: [T, N], B and C.

    Tokens of all three lie one after the other, with any distance.
    """

    steps: Tensor
    write: Tensor
    read: Tensor


@dataclass(frozen=True, slots=True)
class ScanWeights:
    """All float32. decay: [D, N], below 0. skip: [D], how much of an input its output has. step_bias: [D]."""

    decay: Tensor
    skip: Tensor
    step_bias: Tensor


class SelectiveScan(Protocol):
    """S = S · exp(step · decay) + step · x · write; y = (S · read + skip · x) · silu(gate); in float32, rounded once"""

    def __call__(self, x: Tensor, gate: Tensor, selected: Selected, sums: Tensor, plan: RecurrentPlan) -> Tensor:
        """x and gate [T, D] to y [T, D], a new tensor. sums: [rows, D, N] float32, S of each row, goes on."""


class TorchScan:
    """With torch's operators: single tokens of all rows together, prompts one token after the other."""

    def __init__(self, weights: ScanWeights) -> None:
        self._weights = weights

    def __call__(self, x: Tensor, gate: Tensor, selected: Selected, sums: Tensor, plan: RecurrentPlan) -> Tensor:
        """See `SelectiveScan`."""
        wide = x.float()
        steps = F.softplus(selected.steps.float() + self._weights.step_bias)
        every = steps, steps * wide, selected.write.float(), selected.read.float()
        if plan.are_singles:
            out = self._singles(sums, plan.rows, *every)
        else:
            out = torch.zeros_like(wide)
            for row, first, past in plan.on_host():
                out[first:past] = self._prompt(sums[row], *(each[first:past] for each in every))
        return out.addcmul_(wide, self._weights.skip).mul_(F.silu(gate.float())).to(x.dtype)

    def _singles(
        self, sums: Tensor, rows: Tensor, steps: Tensor, inputs: Tensor, write: Tensor, read: Tensor
    ) -> Tensor:
        now = (steps[..., None] * self._weights.decay).exp_().mul_(sums[rows])
        now.addcmul_(inputs[..., None], write[:, None])
        sums.index_copy_(0, rows, now)
        return torch.bmm(now, read[..., None])[..., 0]

    def _prompt(self, sums: Tensor, steps: Tensor, inputs: Tensor, write: Tensor, read: Tensor) -> Tensor:
        """[t, D] of one row's tokens, whose sums [D, N] go on."""
        outputs = []
        before = sums
        pieces = (torch.split(each, TOKENS_AT_ONCE) for each in (steps, inputs, write, read))
        for some_steps, some_inputs, some_write, some_read in zip(*pieces, strict=True):
            fade = (some_steps[..., None] * self._weights.decay).exp_()
            kept = some_inputs[..., None] * some_write[:, None]
            for fading, now in zip(fade, kept, strict=True):
                before = now.addcmul_(fading, before)
            outputs.append(torch.bmm(kept, some_read[..., None])[..., 0])
        sums.copy_(before)
        return torch.cat(outputs)


class FusedScan:
    """In one kernel, on CUDA devices."""

    def __init__(self, weights: ScanWeights) -> None:
        from text_generation_server.kernels.recurrence import scan  # only here is Triton sure to be installed

        self._kernel = scan.selective_scan
        self._weights = weights

    def __call__(self, x: Tensor, gate: Tensor, selected: Selected, sums: Tensor, plan: RecurrentPlan) -> Tensor:
        """See `SelectiveScan`."""
        chosen = selected.steps, selected.write, selected.read
        weights = self._weights.decay, self._weights.skip, self._weights.step_bias
        state = sums, plan.rows, plan.ends
        return self._kernel(x, gate, *chosen, *state, plan.are_singles, plan.count, plan.answer("scan", x), *weights)


def selective_scan(weights: ScanWeights) -> SelectiveScan:
    """The scan as the weights' device computes it best."""
    return FusedScan(weights) if weights.decay.is_cuda else TorchScan(weights)
