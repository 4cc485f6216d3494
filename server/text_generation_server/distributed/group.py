"""The ranks that hold one model together, and what they exchange. Knows nothing of what the tensors mean."""

from datetime import timedelta
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from text_generation_server.errors import StartError

MEETING_PATIENCE = timedelta(minutes=10)
"""How long a rank waits for the others, at the start and in a collective."""


class TensorParallel(Protocol):
    """A rank among `world_size`. Every rank must make the same calls in the same order."""

    @property
    def rank(self) -> int:
        """This rank, from 0."""

    @property
    def world_size(self) -> int:
        """Number of ranks."""

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, in place."""

    def all_gather_last(self, tensor: Tensor) -> Tensor:
        """The ranks' tensors [..., n], all of one shape, joined to [..., n · world_size]."""

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Rank 0's tensor, in place."""

    def min(self, value: int) -> int:
        """The smallest of the ranks' values."""

    def close(self) -> None:
        """Leave the group."""


class SingleRank:
    """A group of one: exchanges nothing."""

    rank = 0
    world_size = 1

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor

    def all_gather_last(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor

    def broadcast(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor

    def min(self, value: int) -> int:
        """The value itself."""
        return value

    def close(self) -> None:
        """Nothing to leave."""


class ProcessGroup:
    """Ranks in processes of their own: NCCL between GPUs, gloo between CPUs."""

    def __init__(self, rank: int, world_size: int, address: str, port: int, device: torch.device) -> None:
        self.rank = rank
        self.world_size = world_size
        self._device = device
        try:
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                init_method=f"tcp://{address}:{port}",
                rank=rank,
                world_size=world_size,
                timeout=MEETING_PATIENCE,
                device_id=device if device.type == "cuda" else None,
            )
        except (RuntimeError, ValueError) as error:
            raise StartError(
                f"rank {rank} of {world_size} could not meet the others at {address}:{port}: {error}"
            ) from error

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, in place."""
        dist.all_reduce(tensor)
        return tensor

    def all_gather_last(self, tensor: Tensor) -> Tensor:
        """The ranks' tensors [..., n], all of one shape, joined to [..., n · world_size]."""
        parts = [torch.empty_like(tensor) for _ in range(self.world_size)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts, dim=-1)

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Rank 0's tensor, in place."""
        dist.broadcast(tensor, src=0)
        return tensor

    def min(self, value: int) -> int:
        """The smallest of the ranks' values."""
        smallest = torch.tensor(value, dtype=torch.int64, device=self._device)
        dist.all_reduce(smallest, op=dist.ReduceOp.MIN)
        return int(smallest.item())

    def close(self) -> None:
        """Leave the group; the other ranks must leave too."""
        dist.destroy_process_group()


def join_group(
    rank: int, world_size: int, address: str | None, port: int | None, device: torch.device
) -> TensorParallel:
    """This process's group; waits until every rank has come to `address`:`port`. One rank alone needs neither.

    Raises:
        StartError: the ranks did not meet.
    """
    if world_size == 1:
        return SingleRank()
    if address is None or port is None:
        raise StartError(f"{world_size} ranks need an address and a port to meet at, got {address} and {port}")
    return ProcessGroup(rank, world_size, address, port, device)
