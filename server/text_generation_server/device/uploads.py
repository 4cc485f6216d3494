"""Weights on their way from mapped files to a device: through pinned blocks, several threads at a time.

Knows neither files nor models. Copying from memory that is not pinned, the driver makes every thread wait for every
other and for the device; so a thread copies into a block of its own while the device fetches its other one. Host memory
holds these blocks only.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from text_generation_server.device.current import on_device

BLOCK_BYTES = 8 << 20
"""Enough that starting a copy takes no time beside it; every thread has two."""

Fence = Callable[[], Callable[[], None]]
"""Called when a copy has been enqueued; what it returns waits until that is done."""


@dataclass(slots=True)
class _Block:
    memory: Tensor
    wait: Callable[[], None] = field(default=lambda: None)


class Uploads:
    """Copies tensors of the host into places on a device. The device has them once its default stream comes by."""

    def __init__(self, pinned: bool = True, fence: Fence | None = None, block_bytes: int = BLOCK_BYTES) -> None:
        self._pinned = pinned
        self._fence = fence or _recorded
        self._block_bytes = block_bytes
        self._own = threading.local()

    def __call__(self, source: Tensor, place: Tensor) -> None:
        """Fill `place`, of the same shape; what is to be of another type is converted on the way into a block."""
        if source.device.type != "cpu" or (place.device.type == "cpu" and self._pinned):
            place.copy_(source)
            return
        with on_device(place.device):
            for part, target in self._parts(source, place):
                block = self._next_block()
                block.wait()  # for the copy before last of this thread
                staged = block.memory[: part.numel() * target.element_size()].view(target.dtype).view(part.shape)
                target.copy_(staged.copy_(part), non_blocking=True)
                block.wait = self._fence()

    def _parts(self, source: Tensor, place: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Pieces that fit into a block, and where they go."""
        if place.nbytes <= self._block_bytes:
            yield source, place
            return
        rows = max(1, self._block_bytes * len(place) // place.nbytes)
        for part, target in zip(torch.split(source, rows), torch.split(place, rows), strict=True):
            if len(source) > 1:
                yield from self._parts(part, target)
            else:  # a single row that is longer than a block
                yield from self._parts(part[0], target[0])

    def _next_block(self) -> _Block:
        blocks: list[_Block] | None = getattr(self._own, "blocks", None)
        if blocks is None:
            blocks = self._own.blocks = [
                _Block(torch.empty(self._block_bytes, dtype=torch.uint8, pin_memory=self._pinned)) for _ in range(2)
            ]
        blocks.reverse()
        return blocks[0]


def _recorded() -> Callable[[], None]:
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()
    return copied.synchronize
