"""Products activated at once: gates and what they let through are rows of one matrix. Knows no way to multiply.

Of weights [2 · n, K] the first half makes the gates. A program takes as many rows of one half as of the other: KIND is
the activation, None for plain products, which everything here leaves as they are.
"""

import triton
import triton.language as tl

from text_generation_server.kernels.activation import activate, counterpart


@triton.jit
def weight_row(index: tl.tensor, outputs: int, RUN: tl.constexpr, KIND: tl.constexpr) -> tl.tensor:
    """Which row of the weights makes the sums of this index: RUN gates, then as many others, and so on.

    outputs: of the product, n if it is activated. What is behind the last is computed as the last.
    """
    if KIND is None:
        row = tl.minimum(index, outputs - 1)
    else:
        row = tl.minimum(index // (2 * RUN) * RUN + index % RUN, outputs - 1) + index // RUN % 2 * outputs
    return row


@triton.jit
def gated(sums: tl.tensor, dtype: tl.constexpr, RUN: tl.constexpr, KIND: tl.constexpr) -> tl.tensor:
    """Sums [m, N] in float32 to outputs [m, N / 2]: act(gate) · other, each rounded as if it had been stored."""
    rows: tl.constexpr = sums.shape[0]
    runs: tl.constexpr = sums.shape[1] // (2 * RUN)
    pairs = tl.permute(tl.reshape(sums, (rows, runs, 2, RUN)), (0, 1, 3, 2))
    gates, others = tl.split(pairs)
    activated = activate(gates.to(dtype).to(tl.float32), KIND).to(dtype).to(tl.float32)
    others = counterpart(others.to(dtype).to(tl.float32), KIND)
    return tl.reshape(activated * others, (rows, runs * RUN))
