"""Runs cases on several ranks, each a process with gloo. Imports nothing but the server, so that ranks start fast."""

import multiprocessing
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from oracles.driver import Driver
from oracles.lora import place
from text_generation_server.distributed.group import join_group
from text_generation_server.images.types import PlacedImage
from text_generation_server.models.loading import ModelOptions, load_model

PATIENCE_S = 240.0


@dataclass(frozen=True)
class Asked:
    """A saved model, token sequences with their images and the lengths of their prompts, and adapters to it.

    The adapters' places by row are 0, 1, …, the last, 0, 1, …
    """

    directory: Path
    sequences: Sequence[Sequence[int]]
    adapters: Sequence[Path] = ()
    images: Sequence[Sequence[PlacedImage]] = ()
    prompts: Sequence[int] = ()

    @property
    def numbers(self) -> list[int]:
        """The adapter of each sequence, none for a model without any."""
        return [row % (len(self.adapters) + 1) for row in range(len(self.sequences))] if self.adapters else []


@dataclass(frozen=True)
class RankAnswers:
    """What one rank found. models: logits that follow each position of each sequence, by the name they were asked by.

    exchanged: what the rank got when each gave its number: broadcast, gathered, smallest.
    """

    models: dict[str, list[Tensor]]
    exchanged: tuple[list[int], list[int], int]


def answers_of(world_size: int, models: Mapping[str, Asked], decoded: int, folder: Path) -> list[RankAnswers]:
    """What each rank answers to each model's sequences: a step for all but the `decoded` last tokens, then one a token.

    `folder` is for the ranks' files.
    """
    context = multiprocessing.get_context("spawn")
    arguments = (world_size, _free_port(), models, decoded, folder)
    ranks = [context.Process(target=_run, args=(rank, *arguments)) for rank in range(world_size)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(PATIENCE_S)
    assert [process.exitcode for process in ranks] == [0] * world_size
    return [RankAnswers(*torch.load(_file(folder, rank))) for rank in range(world_size)]


def _run(
    rank: int,
    world_size: int,
    port: int,
    models: Mapping[str, Asked],
    decoded: int,
    folder: Path,
) -> None:
    torch.set_num_threads(1)
    device = torch.device("cpu")
    group = join_group(rank, world_size, "127.0.0.1", port, device)
    answers: dict[str, list[Tensor]] = {}
    for name, asked in models.items():
        model = load_model(asked.directory, ModelOptions(torch.float32, device), group, lambda _done, _total: None)
        place(model, asked.adapters)
        spans = [len(row) for row in asked.sequences]
        answers[name] = Driver(model, spans, asked.numbers, images=asked.images, prompts=asked.prompts).follow(
            asked.sequences, decoded
        )
    mine = torch.tensor([10 + rank])
    gathered = group.all_gather_last(mine).tolist()
    exchanged = (group.broadcast(mine).tolist(), gathered, group.min(10 + rank))
    torch.save((answers, exchanged), _file(folder, rank))
    group.close()


def _file(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.pt"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
