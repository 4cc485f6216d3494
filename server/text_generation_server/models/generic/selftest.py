"""Tries a model before it serves: it must answer as with transformers' own attention and positions of its own counting.

What modeling code does between its attention calls is its own affair: a convolution over tokens would mix the sequences
that share a step, and positions that start at another number than 0 would be other positions than ours. Knows no
particular model.
"""

from typing import Any

import torch
from torch import Tensor

from text_generation_server.cache.layout import RowLayout
from text_generation_server.cache.rows import RowTable
from text_generation_server.cache.states import allocate
from text_generation_server.models.generic.bridge import SERVING
from text_generation_server.models.generic.probe import refusal
from text_generation_server.models.step import ServedModel, StepBuilder, forward

LENS = (20, 13)
"""Tokens of the two sequences."""

TOLERANCE = {torch.float32: 0.01, torch.float16: 0.25, torch.bfloat16: 0.25}
"""Of the logits' spread: other shapes of products round differently, and in half precision that may choose another
expert for a token; other positions or sequences do far more."""


def check_answers(model: Any, served: ServedModel) -> None:
    """Leave transformers' model with our attention, and raise UnsupportedModel if it then answers differently."""
    try:
        expected = _answers_alone(model, served)
        model.set_attn_implementation(SERVING)
        got = _answers_together(served)
    except Exception as error:  # code that we do not know may raise anything
        raise refusal(model, f"it fails when it is tried ({type(error).__name__}: {error})") from error
    allowed = TOLERANCE[served.dtype]
    for answer, wanted in zip(got, expected, strict=True):
        if answer.shape != wanted.shape:
            raise refusal(model, f"its logits have shape {list(answer.shape)}, expected {list(wanted.shape)}")
        if not bool((answer - wanted).std() <= allowed * wanted.std()):
            raise refusal(model, "in chunks, beside another sequence, a sequence is answered differently than alone")


def _answers_alone(model: Any, served: ServedModel) -> list[Tensor]:
    """Logits [tokens, vocab] in float32 of each sequence, by transformers' code only."""
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        return [
            model(input_ids=torch.tensor([tokens], device=served.device), use_cache=False).logits[0].float()
            for tokens in _sequences(served.vocab_size)
        ]


def _answers_together(served: ServedModel) -> list[Tensor]:
    """The same logits, computed in two steps that each hold a chunk of both sequences."""
    first, second = _sequences(served.vocab_size)
    rows = _Rows(served)
    early = rows.step((0, first[:14], 0), (1, second[:1], 0))
    late = rows.step((1, second[1:], 1), (0, first[14:], 14))
    return [torch.cat((early[0], late[1])), torch.cat((early[1], late[0]))]


def _sequences(vocab_size: int) -> list[list[int]]:
    """Tokens of the middle of the vocabulary, where none has a meaning of its own."""
    tokens = [(vocab_size // 2 + 7 * at) % vocab_size for at in range(sum(LENS))]
    return [tokens[: LENS[0]], tokens[LENS[0] :]]


class _Rows:
    """Two rows with slots for the longer sequence each."""

    def __init__(self, model: ServedModel) -> None:
        self._model = model
        self._device = model.device
        self._table = RowTable(2, LENS[0], self._device)
        self._table.admit((0, 1), (range(LENS[0]), range(LENS[0], 2 * LENS[0])))
        self._build = StepBuilder(self._table, allocate(model.states, 2 * LENS[0], 2, LENS[0]))

    def step(self, *work: tuple[int, list[int], int]) -> list[Tensor]:
        """Rows, their next tokens and how many came before, to the logits [tokens, vocab] in float32 of each."""
        lens = [len(tokens) for _, tokens, _ in work]
        positions = [before + at for _, tokens, before in work for at in range(len(tokens))]
        ends = [before + len(tokens) for _, tokens, before in work]
        layout = RowLayout.of([row for row, _, _ in work], lens, ends, self._table.block_table)
        step = self._build(
            self._tensor([token for _, tokens, _ in work for token in tokens]),
            self._tensor(positions),
            self._tensor([row for row, tokens, _ in work for _ in tokens]),
            self._model.prepare(layout),
            # Backwards: code that ignores which rows are wanted would answer them in order.
            logit_rows=self._tensor(list(range(len(positions)))[::-1]),
        )
        with torch.inference_mode():
            return list(torch.split(forward(self._model, step).float().flip(0), lens))

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)
