"""Tries a model before it serves: rows of a step must not touch each other, and chunks must be as good as a whole.

What modeling code does between its attention calls is its own affair: a convolution over tokens, or positions that it
counts itself, would mix the sequences that share a step. Knows no particular model.
"""

import torch
from torch import Tensor

from text_generation_server.attention.base import RowLayout
from text_generation_server.cache.paged import PagedCache
from text_generation_server.errors import UnsupportedModel
from text_generation_server.models.step import ServedModel, StepInput

FIRST = (3, 5, 4, 1, 2, 5)
SECOND = (2, 1, 5, 3)
TOLERANCE = 0.25
"""Of the logits' spread: half precision and other shapes of products round differently, other sequences do far more."""


def check_rows_apart(model: ServedModel, name: str) -> None:
    """Raise UnsupportedModel if two sequences answer differently together, in chunks, than each alone."""
    alone = [_Rows(model).step((0, tokens, 0)) for tokens in (FIRST, SECOND)]
    rows = _Rows(model)
    early = rows.step((0, FIRST[:4], 0), (1, SECOND[:1], 0))
    late = rows.step((1, SECOND[1:], 1), (0, FIRST[4:], 4))
    together = (torch.cat((early[:4], late[3:])), torch.cat((early[4:], late[:3])))
    for got, expected in zip(together, alone, strict=True):
        if not bool((got - expected).std() <= TOLERANCE * expected.std()):
            raise UnsupportedModel(
                f"model_type {name} has no architecture of its own here and cannot be served through transformers' "
                "code: in one step with another sequence, or in chunks, a sequence is answered differently than alone"
            )


class _Rows:
    """Two rows of eight slots each."""

    def __init__(self, model: ServedModel) -> None:
        self._model = model
        self._device = model.state.device
        self._cache = PagedCache(model.state, 16)
        self._slots = torch.arange(16, device=self._device).view(2, 8)

    def step(self, *work: tuple[int, tuple[int, ...], int]) -> Tensor:
        """Rows, their next tokens and how many came before, to the logits of all these tokens in float32."""
        lens = [len(tokens) for _, tokens, _ in work]
        positions = [before + at for _, tokens, before in work for at in range(len(tokens))]
        ends = [before + len(tokens) for _, tokens, before in work]
        layout = RowLayout([row for row, _, _ in work], lens, ends, self._slots)
        step = StepInput(
            token_ids=self._tensor([token for _, tokens, _ in work for token in tokens]),
            positions=self._tensor(positions),
            spans=self._tensor([8] * len(positions)),
            logit_rows=self._tensor(list(range(len(positions)))),
            attention=self._model.attention.plan(layout),
            cache=self._cache,
        )
        with torch.inference_mode():
            return self._model.forward(step).float()

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)
