"""How kernels are launched on a device. Knows no kernel."""

from functools import cache

import torch

HOPPER = (9, 0)
"""The first compute capability with programmatic dependent launch."""


@cache
def overlaps(device: torch.device) -> bool:
    """Whether a kernel may start before the one in front of it has ended (programmatic dependent launch).

    Such a kernel must wait (`gdc_wait`) before it touches anything that another kernel writes; weights it may read
    before. A kernel is launched so by the option `launch_pdl` and told so by a constexpr.
    """
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= HOPPER
