"""The sum that a bank adds: of each token's own adapter and no other."""

import pytest
import torch

from text_generation_server.adapters.bank import BankLayout, LoraBank
from text_generation_server.adapters.pairs import LoraPair
from text_generation_server.distributed.group import SingleRank
from text_generation_server.layers.linear import ColumnParallelLinear, LinearSlice, LinearStep, RowParallelLinear

ADAPTERS, CPU = 7, torch.device("cpu")
STEPS = [[0], [5], [7, 0], [3, 3, 0, 1, 7, 2, 0, 6], [0, 0, 0, 0]]
"""Adapters of the tokens of a step."""


def pair(rank: int, outputs: int, inputs: int) -> LoraPair:
    return LoraPair(torch.randn(rank, inputs), torch.randn(outputs, rank), scale=0.5)


class Bank:
    """A bank for one linear."""

    def __init__(self, linear, rank):
        self.linear, self.layout = linear, BankLayout([linear], rank)
        self.bank = LoraBank(self.layout, ADAPTERS, torch.float32, CPU)

    def put(self, place, pairs):
        self.bank.put(place, self.layout.pack(pairs, torch.float32, pinned=False))

    def added(self, x, outputs, numbers):
        """What is added to numbers that are there already."""
        before, adapters = torch.randn(len(x), outputs), torch.tensor(numbers)
        return self.linear.addend(x, adapters, LinearStep(adapters))(before.clone()) - before


@pytest.mark.parametrize("numbers", STEPS)
def test_parts_of_outputs_get_what_their_pairs_say(numbers):
    torch.manual_seed(1)
    order = torch.tensor([4, 2, 0])
    slices = [
        LinearSlice("q", (6, 5), slice(2, 4), 0),  # and a row of padding behind
        LinearSlice("q", (6, 5), order, 3),
        LinearSlice("v", (4, 5), slice(0, 4), 6),
    ]
    linear = ColumnParallelLinear(lambda x: x, slices)
    bank = Bank(linear, 3)
    q = {number: pair(1 + number % 3, 6, 5) for number in range(1, ADAPTERS + 1)}
    v = {3: pair(2, 4, 5)}
    for number in q:
        bank.put(number, {"q": q[number]} | ({"v": v[number]} if number in v else {}))
    x = torch.randn(len(numbers), 5)
    got = bank.added(x, 10, numbers)
    for token, number in enumerate(numbers):
        expected = torch.zeros(10)
        if number:
            whole = 0.5 * q[number].up @ (q[number].down @ x[token])
            expected[0:2], expected[3:6] = whole[2:4], whole[order]
        if number in v:
            expected[6:10] = 0.5 * v[number].up @ (v[number].down @ x[token])
        torch.testing.assert_close(got[token], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("numbers", STEPS)
def test_ranks_sum_up_parts_of_inputs(numbers):
    torch.manual_seed(1)
    pairs = {number: pair(2, 6, 5) for number in range(1, ADAPTERS + 1)}
    whole = torch.randn(len(numbers), 5)
    got = torch.zeros(len(numbers), 6)
    for taken in (slice(0, 3), slice(3, 5)):
        linear = RowParallelLinear(lambda x: x, [LinearSlice("o", (6, 5), taken, 0)], SingleRank())
        bank = Bank(linear, 2)
        for number, of_adapter in pairs.items():
            bank.put(number, {"o": of_adapter})
        # Numbers behind the last slice are padding.
        x = torch.cat((whole[:, taken], torch.full((len(numbers), 2), 7.0)), 1)
        got += bank.added(x, 6, numbers)
    for token, number in enumerate(numbers):
        expected = 0.5 * pairs[number].up @ (pairs[number].down @ whole[token]) if number else torch.zeros(6)
        torch.testing.assert_close(got[token], expected, atol=1e-5, rtol=1e-5)


def test_tokens_of_the_base_model_get_exactly_nothing():
    linear = ColumnParallelLinear(lambda x: x, [LinearSlice("q", (6, 5), slice(0, 6), 0)])
    bank = Bank(linear, 3)
    for number in range(1, ADAPTERS + 1):
        bank.put(number, {"q": pair(3, 6, 5)})
    for tokens in (1, 2, 9):
        assert not bank.added(torch.randn(tokens, 5), 6, [0] * tokens).any()


def test_a_number_that_is_given_again_changes_nothing_of_the_old_pairs():
    linear = ColumnParallelLinear(lambda x: x, [LinearSlice("q", (6, 5), slice(0, 6), 0)])
    bank = Bank(linear, 3)
    bank.put(2, {"q": pair(3, 6, 5)})
    bank.put(2, {"another linear": pair(1, 6, 5)})
    assert not bank.added(torch.randn(9, 5), 6, [2] * 9).any()
