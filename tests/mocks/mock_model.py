"""A served model without weights: its cache holds token ids and its next token is a hash of all it reads there.

A wrong slot, row, position or order therefore shows at once, in the very next token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from math import inf

import numpy
import torch
from torch import Tensor

from text_generation_server.attention.base import LayerAttention
from text_generation_server.cache.layout import RowLayout
from text_generation_server.cache.paged import PagedCache, PagedSpec
from text_generation_server.models.step import StepInput

VOCAB_SIZE = 257
EOS = 256
UNSPOKEN = 255
"""A token no greedy answer contains: tests let a step that computes it fail."""


LogitsOf = Callable[[Sequence[int]], list[float]]
"""From a token history to the logits that follow."""


SEED = 2166136261
"""The hash of no tokens."""


def mixed(state: int, token: int) -> int:
    """The hash of a history and a token behind it."""
    return ((state ^ (token + 1)) * 16777619) & 0xFFFFFFFF


def mix(tokens: Sequence[int]) -> int:
    """A 32-bit hash of a token history, order included."""
    return reduce(mixed, tokens, SEED)


def next_logits(tokens: Sequence[int]) -> list[float]:
    """Logits after a history: spread out, with the end of sequence on top about once in twelve."""
    return logits_after(mix(tokens))


def logits_after(state: int) -> list[float]:
    """The same after a history with this hash."""
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
    """Attention that gathers histories: its answer for a token is where that token's history is in the list."""

    layout: RowLayout
    histories: list[list[int]]

    def run(self, q: Tensor, layer: LayerAttention, cache: PagedCache) -> Tensor:
        layout, tokens = self.layout, cache.keys(layer.layer)[:, 0, 0].numpy()
        first = len(self.histories)
        for row, count, seen in zip(layout.rows, layout.query_lens, layout.seq_lens, strict=True):
            # What was never written is read by rows only that run for nothing.
            kept = numpy.nan_to_num(tokens[layout.block_table[row, :seen].numpy()], posinf=0.0, neginf=0.0)
            history = kept.clip(0, VOCAB_SIZE - 1).astype(int).tolist()
            self.histories.extend(history[:end] for end in range(seen - count + 1, seen + 1))
        assert len(self.histories) == first + len(q)
        return torch.arange(first, len(self.histories), dtype=torch.float64)[:, None]


@dataclass(frozen=True, slots=True)
class MockDecodePlan:
    """The same for steps of one token a row, whose numbers are in these tensors when they run."""

    rows: Tensor
    seq_lens: Tensor
    block_table: Tensor
    histories: list[list[int]]

    def suits(self, seq_lens: Sequence[int]) -> bool:
        return len(seq_lens) == len(self.rows)

    def prepare(self, seq_lens: Sequence[int]) -> None:
        assert seq_lens == self.seq_lens.tolist()

    def run(self, q: Tensor, layer: LayerAttention, cache: PagedCache) -> Tensor:
        rows = self.rows.tolist()
        layout = RowLayout.of(rows, [1] * len(rows), self.seq_lens.tolist(), self.block_table)
        return MockPlan(layout, self.histories).run(q, layer, cache)


class MockTokenPlan:
    """The same for steps of any rows, whose numbers were given before; `with_singles`: also rows of one token."""

    def __init__(self, block_table: Tensor, histories: list[list[int]], with_singles: bool, longest: float) -> None:
        self.block_table, self.histories, self.with_singles = block_table, histories, with_singles
        self.longest = longest
        self.layout: RowLayout | None = None

    def suits(self, query_lens: Sequence[int], seq_lens: Sequence[int]) -> bool:
        return (self.with_singles or min(query_lens) > 1) and max(seq_lens) <= self.longest

    def prepare(self, rows: Sequence[int], query_lens: Sequence[int], seq_lens: Sequence[int]) -> None:
        self.layout = RowLayout.of(rows, query_lens, seq_lens, self.block_table)

    def run(self, q: Tensor, layer: LayerAttention, cache: PagedCache) -> Tensor:
        found = torch.zeros(len(q), 1, dtype=torch.float64)
        if self.layout is not None:
            tokens = sum(self.layout.query_lens)
            found[:tokens] = MockPlan(self.layout, self.histories).run(q[:tokens], layer, cache)
        return found


class MockAttention:
    """Satisfies `AttentionBackend`. `longest`: keys of a row for which a plan of prompts suits."""

    name = "mock"
    slot_major = False

    def __init__(self) -> None:
        self.histories: list[list[int]] = []
        self.longest = inf

    def plan(self, layout: RowLayout) -> MockPlan:
        return MockPlan(layout, self.histories)

    def decode_plans(self, rows: Tensor, seq_lens: Tensor, block_table: Tensor) -> list[MockDecodePlan]:
        return [MockDecodePlan(rows, seq_lens, block_table, self.histories)]

    def token_plans(self, tokens: int, block_table: Tensor) -> list[MockTokenPlan]:
        table, longest = block_table, self.longest
        return [MockTokenPlan(table, self.histories, with_singles, longest) for with_singles in (False, True)]


class MockModel:
    """Satisfies `ServedModel`. `fail_on` makes any step that computes this token raise.

    `logits` makes the logits that follow a token history; an adapter is to them one more token before it.
    `sizes`: tokens of the steps that it has run.
    """

    def __init__(
        self,
        max_positions: int | None = 4096,
        fail_on: int | None = None,
        logits: LogitsOf = next_logits,
    ) -> None:
        self.device, self.dtype, self.mixing = torch.device("cpu"), torch.float32, "mock"
        self.states = (PagedSpec(num_layers=1, kv_heads=1, head_dim=1, dtype=torch.float64, device=self.device),)
        self.attention = MockAttention()
        self.vocab_size = VOCAB_SIZE
        self.max_positions = max_positions
        self.records = True
        self.encoder = self.reader = None
        self.fail_on = fail_on
        self.logits_of = logits
        self.sizes: list[int] = []
        self.adapters: list[int] | None = None
        self.contents: dict[int, int] = {}
        self.linears = ()

    @property
    def computed_tokens(self) -> int:
        """Of all steps so far."""
        return sum(self.sizes)

    def prepare(self, layout: RowLayout) -> MockPlan:
        return self.attention.plan(layout)

    def decode_plans(self, rows: Tensor, seq_lens: Tensor, block_table: Tensor) -> list[MockDecodePlan]:
        return self.attention.decode_plans(rows, seq_lens, block_table)

    def token_plans(self, tokens: int, block_table: Tensor) -> list[MockTokenPlan]:
        return self.attention.token_plans(tokens, block_table)

    def hidden(self, step: StepInput) -> Tensor:
        """Where each wanted token's history is, [L, 1]."""
        if self.fail_on in step.token_ids.tolist():
            raise RuntimeError("the mock device failed")
        self.sizes.append(len(step.token_ids))
        self.attention.histories.clear()
        self.adapters = None if step.adapters is None else step.adapters.tolist()
        q = step.token_ids.double()[:, None, None]
        (cache,) = step.states
        cache.write(0, step.slot_mapping, q.repeat(1, 2, 1))
        places = step.prepared.run(q, LayerAttention(0, 0, 1.0), cache)
        return places if step.logit_rows is None else places[step.logit_rows]

    def logits(self, hidden: Tensor, rows: Tensor | None) -> Tensor:
        wanted = hidden if rows is None else hidden[rows]
        logits = [self.logits_of(self._history(int(place))) for place in wanted[:, 0].tolist()]
        return torch.tensor(logits, dtype=torch.float32).reshape(len(wanted), VOCAB_SIZE)

    def _history(self, place: int) -> list[int]:
        adapter = self.adapters[place] if self.adapters else 0
        return ([self.contents[adapter]] if adapter else []) + self.attention.histories[place]
