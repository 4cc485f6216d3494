"""Builds layers several at a time. Knows nothing of what a layer is."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")

AT_ONCE = 4
"""Layers: enough that one is packed while another waits for the disk. Each needs memory for its largest matrix."""


def build_layers(build: Callable[[int], T], layers: int) -> list[T]:
    """`build` of every layer's number, in threads that divide torch's threads among them.

    A layer is many short copies. All threads sharing each of them wait for one another: on a busy machine longer than
    the copies take. To be called where nothing else computes: torch's number of threads is changed meanwhile.
    """
    threads = torch.get_num_threads()
    workers = min(threads, AT_ONCE)
    torch.set_num_threads(threads // workers)  # threads take this over when they first compute
    try:
        with ThreadPoolExecutor(workers, "layers") as pool:
            return list(pool.map(build, range(layers)))
    finally:
        torch.set_num_threads(threads)
