"""What the kernels that stream weights through registers share. Knows no way to multiply.

In products that are activated, outputs of the first half of the weights (gates) stand beside those of the second.
"""

import triton
import triton.language as tl

from text_generation_server.kernels.activation import activate


@triton.jit
def none() -> tl.tuple:
    return ()


@triton.jit
def both(tensors: tl.tuple, tensor: tl.tensor) -> tl.tuple:
    """One more at the end."""
    return tensors + (tensor,)  # noqa: RUF005 (Triton unpacks no tuples)


@triton.jit
def weight_row(index: tl.tensor, outputs: int, RUN: tl.constexpr, KIND: tl.constexpr) -> tl.tensor:
    """The row of the weights for a sum of the grid: that many gates, then as many others, and so on.

    What is behind the last output is computed as the last.
    """
    if KIND is None:
        row = tl.minimum(index, outputs - 1)
    else:
        row = tl.minimum(index // (2 * RUN) * RUN + index % RUN, outputs - 1) + index // RUN % 2 * outputs
    return row


@triton.jit
def gate(gates: tl.tensor, others: tl.tensor, dtype: tl.constexpr, KIND: tl.constexpr) -> tl.tensor:
    """act(gate) · other of sums in float32, each rounded as if it had been stored."""
    activated = activate(gates.to(dtype).to(tl.float32), KIND).to(dtype).to(tl.float32)
    return activated * others.to(dtype).to(tl.float32)
