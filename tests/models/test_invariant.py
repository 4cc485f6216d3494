"""With `deterministic`, a token has the same bits whatever else is in its step; and they are the right ones."""

from dataclasses import dataclass

import pytest
import torch

from oracles.build import ANSWER_LEN
from oracles.driver import Driver
from text_generation_server.attention.base import AttentionShape, AttentionVariant
from text_generation_server.attention.tokenwise import TokenwiseAttention
from text_generation_server.cache.paged import PagedSpec
from text_generation_server.distributed.group import SingleRank
from text_generation_server.models.invariant import invariant, pieces
from text_generation_server.models.loading import ModelOptions

KINDS = ("llama", "mistral", "mpt", "gemma2", "gpt_oss", "opt", "mamba")
"""Full attention, windows, linear biases, soft caps, experts and sinks, plain activations, a recurrence."""

DTYPES = (torch.float32, torch.bfloat16)
KV = PagedSpec(1, 1, 8, torch.float32, torch.device("cpu"))


def options(dtype):
    return ModelOptions(dtype, torch.device("cpu"), deterministic=True)


every_kind = pytest.mark.parametrize("oracle", KINDS, indirect=True)


@every_kind
def test_a_ragged_batch_answers_as_transformers_do(oracle):
    driver = Driver(oracle.load(options(torch.float32)), oracle.reference.spans)
    answers, logits = driver.greedy(oracle.reference.prompts, ANSWER_LEN)
    assert answers == oracle.reference.answers
    for row, expected in zip(logits, oracle.reference.logits, strict=True):
        torch.testing.assert_close(row, expected, atol=oracle.case.tolerance, rtol=0.0)


@pytest.mark.parametrize("dtype", DTYPES)
@every_kind
def test_company_and_chunks_change_no_bit(oracle, dtype):
    model = oracle.load(options(dtype))
    sequence, others = oracle.reference.sequences[0], [*oracle.reference.sequences[1:]] * 6
    spans = [len(sequence)] + [len(other) for other in others]
    (alone,) = Driver(model, spans).step([(0, sequence)])
    decoded = Driver(model, spans)
    assert torch.equal(alone, torch.cat([decoded.step([(0, [token])])[0] for token in sequence]))
    crowd = Driver(model, spans)
    crowd.step([(row, other[:3]) for row, other in enumerate(others, start=1)])
    got = []
    for at, chunk in enumerate((sequence[:5], sequence[5:6], sequence[6:]), start=3):
        work = [(row, [other[at]]) for row, other in enumerate(others, start=1)]
        got.append(crowd.step([*work[:at], (0, chunk), *work[at:]])[at])
    assert torch.equal(alone, torch.cat(got))


@dataclass
class Fickle:
    """A model whose tokens depend on what is in the step in the way that `trouble` tells, of ids [T]."""

    trouble: object
    states = (KV,)
    vocab_size = 1000
    max_positions = None
    attention = TokenwiseAttention(AttentionShape((AttentionVariant(),), 1, KV))

    def prepare(self, layout):
        return self.attention.plan(layout)

    def hidden(self, step):
        return step.token_ids[:, None] + self.trouble(step.token_ids)

    def logits(self, hidden, rows):
        return hidden


@pytest.mark.parametrize(
    ("trouble", "sizes"),
    [
        (lambda ids: 0, (16, 8, 4, 2, 1)),
        (lambda ids: int(len(ids) >= 4), (16, 8, 4)),
        (lambda ids: int(len(ids) >= 16), (16,)),
        (lambda ids: int(ids.sum()), (1,)),
        (lambda ids: (torch.arange(len(ids)) >= 8)[:, None], (8, 4, 2, 1)),
    ],
)
def test_only_sizes_that_make_no_difference_are_used(trouble, sizes):
    assert invariant(Fickle(trouble), SingleRank()).sizes == sizes


def test_a_last_piece_is_filled_up_to_a_size():
    assert list(pieces(21, (16, 8, 2))) == [(0, 16, 16), (16, 21, 8)]
    assert list(pieces(3, (1,))) == [(0, 1, 1), (1, 2, 1), (2, 3, 1)]
