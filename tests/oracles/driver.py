"""Drives a served model by hand, as the engine would: rows, slots, steps. Imports nothing but the server."""

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from text_generation_server.cache.layout import RowLayout
from text_generation_server.cache.rows import RowTable
from text_generation_server.cache.states import allocate
from text_generation_server.models.step import ServedModel, StepBuilder, forward


class Driver:
    """A model with a cache whose slots are dealt out in random order. spans: length that each row may reach.

    adapters: the place of each row's adapter, none for steps without any.
    """

    def __init__(
        self, model: ServedModel, spans: Sequence[int] = (64, 64, 64, 64), adapters: Sequence[int] = ()
    ) -> None:
        self.model = model
        self.spans = spans
        rows, max_len = len(spans), max(spans)
        num_slots = rows * max_len
        self.states = allocate(model.states, num_slots, rows)
        slots = random.Random(1).sample(range(num_slots), num_slots)
        self.device = model.device
        table = RowTable(rows, max_len, self.device)
        table.admit(range(rows), [slots[row * max_len :][:span] for row, span in enumerate(spans)], adapters or None)
        self.slots, self._build = table.block_table, StepBuilder(table, self.states, adapted=bool(adapters))
        self.lens = [0] * rows
        for spec, state in zip(model.states, self.states, strict=True):
            for layer in range(spec.num_layers):
                # What was never written must never count, whatever it happens to be.
                state.layer(layer).fill_(torch.nan)

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
        )
        positions = [self.lens[row] + offset for row, tokens in work for offset in range(len(tokens))]
        rows = [row for row, tokens in work for _ in tokens]
        step = self._build(
            self._tensor([token for _, tokens in work for token in tokens]),
            self._tensor(positions),
            self._tensor(rows),
            self.model.prepare(layout),
            logit_rows=self._tensor(wanted),
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
