"""Drives a served model by hand, as the engine would: rows, slots, steps. Imports nothing but the server."""

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from text_generation_server.cache.layout import Block, RowLayout
from text_generation_server.cache.rows import RowTable
from text_generation_server.cache.states import allocate
from text_generation_server.images.types import PlacedImage
from text_generation_server.images.views import views_of
from text_generation_server.models.step import (
    FEATURE,
    ImageInput,
    ImagePlaces,
    SeenImages,
    ServedModel,
    SourceInput,
    StepBuilder,
    forward,
)
from text_generation_server.specs.crossing import Views
from text_generation_server.specs.vision import Sight

SOURCE_LENS = (9, 3, 21, 1)


def source_of(row: int) -> list[int]:
    """What an encoder reads for a row, whose decoder then answers."""
    drawn = random.Random(row)
    return [drawn.randrange(3, 97) for _ in range(SOURCE_LENS[row % len(SOURCE_LENS)])]


class Driver:
    """A model with a cache whose slots are dealt out in random order. spans: length that each row may reach.

    adapters: the place of each row's adapter, none for steps without any. sources: what an encoder reads for each row;
    those of `source_of` if none are given. images: of each row. prompts: lengths, where all of a prompt sees all of it.
    """

    def __init__(
        self,
        model: ServedModel,
        spans: Sequence[int] = (64, 64, 64, 64),
        adapters: Sequence[int] = (),
        sources: Sequence[Sequence[int]] = (),
        images: Sequence[Sequence[PlacedImage]] = (),
        prompts: Sequence[int] = (),
    ) -> None:
        self.model = model
        self.spans = spans
        rows, max_len = len(spans), max(spans)
        sources = [] if model.encoder is None else sources or [source_of(row) for row in range(rows)]
        num_slots = rows * max_len + sum(map(len, sources))
        self.states = allocate(model.states, num_slots, rows, max([max_len, *map(len, sources)]))
        slots = random.Random(1).sample(range(num_slots), num_slots)
        self.device = model.device
        table = RowTable(rows, max_len, self.device)
        table.admit(range(rows), [slots[row * max_len :][:span] for row, span in enumerate(spans)], adapters or None)
        self.slots, self._build = table.block_table, StepBuilder(table, self.states, adapted=bool(adapters))
        self.lens = [0] * rows
        for state in self.states:
            for tensor in _tensors(vars(state)):
                # What was never written must never count, whatever it happens to be.
                tensor.fill_(torch.nan)
            state.admit(torch.arange(rows, device=self.device))
        self.prompts = prompts if model.reader is not None and model.reader.sight is Sight.PROMPTS else ()
        self._features: dict[tuple[int, int], int] = {}
        self._mutual: list[tuple[int, int, int]] = []
        if model.reader is not None:
            placed = [[(image.positions[0], image.image.grid) for image in shown] for shown in images]
            places = [*placed, *[[]] * (rows - len(placed))]
            dealt = [slots[row * max_len :][:span] for row, span in enumerate(spans)]
            model.reader.place([ImagePlaces(*one) for one in zip(dealt, places, strict=True)], self.states)
        self._read([(row, image) for row, shown in enumerate(images) for image in shown])
        if model.encoder is not None:
            ids = self._tensor([token for source in sources for token in source])
            lens = [*map(len, sources)]
            with torch.inference_mode():
                model.encoder(SourceInput(range(rows), lens, ids, self._tensor(slots[rows * max_len :])), self.states)

    def _read(self, images: Sequence[tuple[int, PlacedImage]]) -> None:
        """Let the model read the images of rows, whose features go to places in random order."""
        if not images or self.model.reader is None:
            return
        if self.model.reader.views is not None:
            return self._let_see(images, self.model.reader.views)
        if self.model.reader.sight is Sight.IMAGES:
            self._mutual = [(row, image.positions[0], image.positions[-1] + 1) for row, image in images]
        places = np.random.default_rng(2).permutation(sum(image.image.tokens for _, image in images))
        inputs, first = [], 0
        for row, placed in images:
            inputs.append(ImageInput(placed.image, places[first : first + placed.image.tokens]))
            first += placed.image.tokens
            for position, place in zip(placed.positions, inputs[-1].places, strict=True):
                self._features[row, position] = int(place)
        with torch.inference_mode():
            self.model.reader(inputs, self.states)

    def _let_see(self, images: Sequence[tuple[int, PlacedImage]], rule: Views) -> None:
        """The same where layers attend to images."""
        places, inputs, seen = np.random.default_rng(2).permutation(sum(one.image.kept for _, one in images)), [], []
        for row, of_row in groupby(images, lambda one: one[0]):
            first, shown = len(inputs), [placed for _, placed in of_row]
            for placed in shown:
                inputs.append(ImageInput(placed.image, places[: placed.image.kept]))
                places = places[placed.image.kept :]
            held = np.concatenate([one.places for one in inputs[first:]])
            seen.append(SeenImages(row, held, views_of((), shown, rule)))
        with torch.inference_mode():
            self.model.reader(inputs, self.states, seen)

    def _inputs(self, row: int, tokens: Sequence[int]) -> Iterator[int]:
        """The row's next tokens, and features where its images stand."""
        for position, token in enumerate(tokens, self.lens[row]):
            place = self._features.get((row, position))
            yield token if place is None else FEATURE - place

    def _blocks(self, index: int, row: int, tokens: Sequence[int]) -> Iterator[Block]:
        """Of a row's next tokens."""
        begin = self.lens[row]
        if self.prompts and begin < self.prompts[row]:
            yield Block(index, 0, self.prompts[row])
        for of_row, start, end in self._mutual:
            if of_row == row and start < begin + len(tokens) and end > begin:
                assert end <= begin + len(tokens), "a block is cut"
                yield Block(index, start, end)

    def step(self, work: Sequence[tuple[int, Sequence[int]]]) -> list[Tensor]:
        """Compute these tokens of these rows in one step; returns the logits [tokens, vocab] of each."""
        lens = [len(tokens) for _, tokens in work]
        return list(self.pick(work, range(sum(lens))).split(lens))

    def pick(self, work: Sequence[tuple[int, Sequence[int]]], wanted: Sequence[int]) -> Tensor:
        """The same, but only the logits [wanted, vocab] after these of all tokens."""
        layout = RowLayout.of(
            rows=[row for row, _ in work],
            query_lens=[len(tokens) for _, tokens in work],
            seq_lens=[self.lens[row] + len(tokens) for row, tokens in work],
            block_table=self.slots,
            blocks=[block for index, (row, tokens) in enumerate(work) for block in self._blocks(index, row, tokens)],
        )
        positions = [self.lens[row] + offset for row, tokens in work for offset in range(len(tokens))]
        rows = [row for row, tokens in work for _ in tokens]
        step = self._build(
            self._tensor(ids := [token for row, tokens in work for token in self._inputs(row, tokens)]),
            self._tensor(positions),
            self._tensor(rows),
            self.model.prepare(layout),
            logit_rows=self._tensor(wanted),
            pictured=min(ids) < 0,
        )
        with torch.inference_mode():
            logits = forward(self.model, step).cpu()
        for row, tokens in work:
            self.lens[row] += len(tokens)
        return logits

    def follow(self, sequences: Sequence[Sequence[int]], decoded: int) -> list[Tensor]:
        """All sequences in one batch, all but the last tokens at once; the logits that follow each position."""
        pieces = [[logits] for logits in self.step([(row, ids[:-decoded]) for row, ids in enumerate(sequences)])]
        for at in range(-decoded, 0):
            step = [(row, ids[at : len(ids) + at + 1]) for row, ids in enumerate(sequences)]
            for row, logits in enumerate(self.step(step)):
                pieces[row].append(logits)
        return [torch.cat(row) for row in pieces]

    def _tensor(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.device)

    def greedy(self, prompts: Sequence[Sequence[int]], count: int) -> tuple[list[list[int]], list[Tensor]]:
        """Answer all prompts in one batch; returns tokens, and the logits that follow each position but the last."""
        pieces = [[logits] for logits in self.step(list(enumerate(prompts)))]
        answers: list[list[int]] = [[] for _ in prompts]
        for _ in range(count):
            for row, answer in enumerate(answers):
                answer.append(int(pieces[row][-1][-1].argmax()))
            for row, logits in enumerate(self.step([(row, answer[-1:]) for row, answer in enumerate(answers)])):
                pieces[row].append(logits)
        return answers, [torch.cat(row) for row in pieces]


def _tensors(attributes: Mapping[str, object]) -> Iterator[Tensor]:
    """All tensors of numbers that are no indices that an object has, or has lists of."""
    for value in attributes.values():
        for tensor in value if isinstance(value, list | tuple) else [value]:
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                yield tensor
