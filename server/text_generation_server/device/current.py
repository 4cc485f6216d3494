"""Lets a thread mean a device where nothing says which. Knows not what is done there."""

from contextlib import AbstractContextManager, nullcontext

import torch


def on_device(device: torch.device) -> AbstractContextManager[object]:
    """Within, streams, events and libraries that name no device are this one's.

    Every thread begins with the first GPU as its own, whatever others have set: on another rank events would be
    recorded in a stream of the wrong GPU, and wait for nothing.
    """
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
