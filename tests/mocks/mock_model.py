"""A served model without weights: its cache holds token ids and its next token is a hash of all it reads there.

A wrong slot, row, position or order therefore shows at once, in the very next token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from text_generation_server.attention.base import RowLayout
from text_generation_server.models.step import StateSpec, StepInput

VOCAB_SIZE = 257
EOS = 256
UNSPOKEN = 255
"""A token no greedy answer contains: tests let a step that computes it fail."""


LogitsOf = Callable[[Sequence[int]], list[float]]
"""From a token history to the logits that follow."""


def mix(tokens: Sequence[int]) -> int:
    """A 32-bit hash of a token history, order included."""
    state = 2166136261
    for token in tokens:
        state = ((state ^ (token + 1)) * 16777619) & 0xFFFFFFFF
    return state


def next_logits(tokens: Sequence[int]) -> list[float]:
    """Logits after a history: spread out, with the end of sequence on top about once in twelve."""
    state = mix(tokens)
    logits = [((state * (2 * v + 1) + v * 40503) & 0xFFFF) / 8192 for v in range(VOCAB_SIZE)]
    logits[EOS] = 9.0 if state % 12 == 0 else -9.0
    logits[UNSPOKEN] = -9.0
    return logits


def looping_logits(tokens: Sequence[int]) -> list[float]:
    """As `next_logits`, but mostly the answer counts 0, 1, 2, 3, 0, …: it can be guessed, if not always."""
    logits = next_logits(tokens)
    if mix(tokens) % 8:
        logits[(tokens[-1] + 1) % 4] = 10.0
    return logits


def greedy_continuation(
    prompt: Sequence[int], length: int, ignore_eos: bool = False, logits_of: LogitsOf = next_logits
) -> list[int]:
    """What a greedy request must answer, found without any engine."""
    tokens, answer = list(prompt), []
    while len(answer) < length:
        logits = logits_of(tokens)
        token = max(range(VOCAB_SIZE), key=logits.__getitem__)
        tokens.append(token)
        answer.append(token)
        if token == EOS and not ignore_eos:
            break
    return answer


@dataclass(frozen=True, slots=True)
class MockPlan:
    """The layout as it came."""

    layout: RowLayout


class MockAttention:
    """Satisfies `AttentionBackend`; the model reads the cache itself."""

    name = "mock"
    slot_major = False

    def plan(self, layout: RowLayout) -> MockPlan:
        return MockPlan(layout)

    def run(self, *args: object) -> Tensor:
        raise AssertionError("the mock model has no attention layers")


class MockModel:
    """Satisfies `ServedModel`. `fail_on` makes any step that computes this token raise.

    `logits` makes the logits that follow a token history.
    """

    def __init__(
        self,
        max_positions: int | None = 4096,
        fail_on: int | None = None,
        logits: LogitsOf = next_logits,
    ) -> None:
        device = torch.device("cpu")
        self.state = StateSpec(num_layers=1, kv_heads=1, head_dim=1, dtype=torch.float64, device=device)
        self.attention = MockAttention()
        self.vocab_size = VOCAB_SIZE
        self.max_positions = max_positions
        self.shares_prefixes = True
        self.fail_on = fail_on
        self.logits = logits
        self.computed_tokens = 0

    def forward(self, step: StepInput) -> Tensor:
        layout = step.attention.layout
        ids, positions = step.token_ids.tolist(), step.positions.tolist()
        if self.fail_on in ids:
            raise RuntimeError("the mock device failed")
        self.computed_tokens += len(ids)
        tokens = step.cache.keys(0)[:, 0, 0].numpy()
        wanted = {row: place for place, row in enumerate(step.logit_rows.tolist())}
        logits: list[list[float]] = [[]] * len(wanted)
        at = 0
        for row, count, seen in zip(layout.rows, layout.query_lens, layout.kv_lens, strict=True):
            slots = layout.slot_table[row, :seen].tolist()
            for offset in range(count):
                position = seen - count + offset
                assert positions[at] == position
                tokens[slots[position]] = ids[at]
                if at in wanted:
                    logits[wanted[at]] = self.logits([int(tokens[slot]) for slot in slots[: position + 1]])
                at += 1
        return torch.tensor(logits, dtype=torch.float32).reshape(len(wanted), VOCAB_SIZE)
